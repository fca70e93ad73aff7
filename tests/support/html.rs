//! HTML as far as tests must look into it: elements with their attributes, their text and what they are in. Stricter
//! than a browser: what is not closed, or closed in another order, is a failure.

use std::collections::HashMap;

/// Elements without an end.
const VOID: [&str; 6] = ["meta", "link", "input", "br", "hr", "img"];

/// An element.
#[derive(Debug, Default, Clone)]
pub struct Element {
    pub name: String,
    pub attributes: HashMap<String, String>,
    /// The text in it, with that of the elements in it.
    pub text: String,
    /// Positions of the elements that it is in, from the outermost.
    pub inside: Vec<usize>,
}

impl Element {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    pub fn has_class(&self, name: &str) -> bool {
        self.get("class").is_some_and(|classes| classes.split(' ').any(|class| class == name))
    }
}

/// A document: its elements in the order in which they begin.
#[derive(Debug, Default)]
pub struct Document {
    pub elements: Vec<Element>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Panics
    /// If it is not well-formed.
    pub fn parse(html: &str) -> Self {
        let rest = html.strip_prefix("<!doctype html>").expect("a doctype");
        let (mut document, mut open, mut rest) = (Self::default(), Vec::new(), rest);
        while let Some(start) = rest.find('<') {
            document.add_text(&open, &rest[..start]);
            let end =
                tag_end(&rest[start..]).unwrap_or_else(|| panic!("a tag without an end: {}", short(&rest[start..])));
            let tag = &rest[start + 1..start + end];
            rest = &rest[start + end + 1..];
            match tag.strip_prefix('/') {
                Some(name) => {
                    let last: usize = open.pop().unwrap_or_else(|| panic!("</{name}> ends nothing"));
                    assert_eq!(document.elements[last].name, name, "elements end in another order");
                }
                None => {
                    let (tag, is_closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
                    let element = element(tag, &open);
                    let is_void = is_closed || VOID.contains(&element.name.as_str());
                    document.elements.push(element);
                    if !is_void {
                        open.push(document.elements.len() - 1);
                    }
                }
            }
        }
        document.add_text(&open, rest);
        let left: Vec<_> = open.iter().map(|at| &document.elements[*at].name).collect();
        assert!(left.is_empty(), "elements without an end: {left:?}");
        document
    }

    fn add_text(&mut self, open: &[usize], text: &str) {
        let text = decoded(text);
        for at in open {
            self.elements[*at].text.push_str(&text);
        }
    }

    /// The elements with this name.
    pub fn all(&self, name: &'static str) -> impl Iterator<Item = &Element> {
        self.elements.iter().filter(move |element| element.name == name)
    }

    /// The one element with this name.
    pub fn one(&self, name: &'static str) -> &Element {
        let mut all = self.all(name);
        let first = all.next().unwrap_or_else(|| panic!("no <{name}>"));
        assert!(all.next().is_none(), "a second <{name}>");
        first
    }

    /// The element with this id.
    pub fn by_id(&self, id: &str) -> Option<&Element> {
        self.elements.iter().find(|element| element.get("id") == Some(id))
    }

    /// The names of the elements that an element is in.
    pub fn around<'a>(&'a self, element: &'a Element) -> impl Iterator<Item = &'a Element> {
        element.inside.iter().map(|at| &self.elements[*at])
    }

    /// The texts of the marks in the main part.
    pub fn marks(&self) -> Vec<String> {
        let is_mark =
            |element: &&Element| element.has_class("mark") && self.around(element).any(|outer| outer.name == "main");
        self.elements
            .iter()
            .filter(is_mark)
            .map(|mark| mark.text[mark.text.find(' ').unwrap() + 1..].to_owned())
            .collect()
    }
}

/// Where the tag that the text begins with ends: quoted values may have `>`.
fn tag_end(text: &str) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, c)| {
        quoted ^= c == '"';
        (c == '>' && !quoted).then_some(at)
    })
}

fn element(tag: &str, open: &[usize]) -> Element {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "a name: {:?}", short(tag));
    let mut attributes = HashMap::new();
    while !rest.trim_start().is_empty() {
        rest = rest.trim_start();
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        assert!(
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "an attribute: {:?}",
            short(name)
        );
        let value = match after.strip_prefix("=\"") {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"').expect("a quote");
                rest = after;
                value
            }
            None => {
                rest = after;
                ""
            }
        };
        assert!(attributes.insert(name.to_owned(), decoded(value)).is_none(), "{name} twice in {:?}", short(tag));
    }
    Element { name: name.to_owned(), attributes, text: String::new(), inside: open.to_vec() }
}

/// A text with its character references replaced.
fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = after.split_once(';').unwrap_or_else(|| panic!("a lone ampersand: {:?}", short(rest)));
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            _ => {
                let number = name.strip_prefix('#').and_then(|digits| digits.parse().ok()).and_then(char::from_u32);
                number.unwrap_or_else(|| panic!("&{name};"))
            }
        });
        rest = after;
    }
    out + rest
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
