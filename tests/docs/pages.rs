//! The pages of the documentation, and what they consist of.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder that the pages' paths begin at.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page in Markdown.
pub struct Page {
    /// Its path from the root.
    pub path: String,
    pub text: String,
}

/// A block of code with the language of its fence; indented ones and those without have none.
pub struct Code {
    pub language: String,
    pub text: String,
}

/// Every page, in the order of their paths.
pub fn all() -> Vec<Page> {
    let in_docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = in_docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    paths.extend(["README.md", "CONTRIBUTING.md", "fuzz/README.md"].map(|path| root().join(path)));
    paths.sort();
    let page = |path: PathBuf| Page {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
    };
    paths.into_iter().map(page).collect()
}

/// The page at this path.
pub fn page(path: &str) -> Page {
    all().into_iter().find(|page| page.path == path).unwrap_or_else(|| panic!("no page {path}"))
}

/// What a slug is made of, as GitHub makes it.
fn slug(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    heading.trim().chars().filter_map(kept).collect()
}

impl Page {
    /// The blocks of code, and the lines of everything else.
    fn split(&self) -> (Vec<Code>, Vec<&str>) {
        let (mut codes, mut lines) = (Vec::new(), Vec::new());
        let mut fence: Option<Code> = None;
        let mut was_indented = false;
        for line in self.text.lines() {
            match (&mut fence, line.strip_prefix("```")) {
                (None, Some(language)) => fence = Some(Code { language: language.into(), text: String::new() }),
                (Some(_), Some(_)) => codes.extend(fence.take()),
                (Some(code), None) => code.text += &format!("{line}\n"),
                (None, None) if line.starts_with("    ") => {
                    if !was_indented {
                        codes.push(Code { language: String::new(), text: String::new() });
                    }
                    codes.last_mut().unwrap().text += &format!("{}\n", line.trim());
                }
                (None, None) => lines.push(line),
            }
            was_indented = fence.is_none() && line.starts_with("    ");
        }
        assert!(fence.is_none(), "{}: a block of code has no end", self.path);
        (codes, lines)
    }

    /// The blocks of code.
    pub fn codes(&self) -> Vec<Code> {
        self.split().0
    }

    /// The lines that are not in a block of code.
    pub fn prose(&self) -> Vec<&str> {
        self.split().1
    }

    /// The spans of code in the prose.
    pub fn spans(&self) -> Vec<&str> {
        self.prose().iter().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
    }

    /// The targets of the links to files and headings.
    pub fn links(&self) -> Vec<&str> {
        let prose = self.prose();
        let after = prose.iter().flat_map(|line| line.split("](").skip(1));
        let targets = after.map(|rest| rest.split(')').next().unwrap());
        targets.filter(|target| !target.contains("://")).collect()
    }

    /// The names by which links find the headings.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter(|line| line.starts_with('#'));
        headings.map(|line| slug(line.trim_start_matches('#'))).collect()
    }

    /// The cells of the tables' rows, without their heads.
    pub fn rows(&self) -> Vec<Vec<&str>> {
        let prose = self.prose();
        let rows = prose.iter().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
        let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        rows.filter(|cells| !cells[0].starts_with("---")).collect()
    }
}

#[test]
fn a_page_is_parsed_into_headings_links_and_examples() {
    let text = "# A `b` c, d: 1,000\n[x](y.md#z)\n| `k` | v |\n| --- | --- |\n\n    a\n    b\n\n```sh\nc\n```\n`d e`\n";
    let page = Page { path: String::new(), text: text.into() };
    let codes: Vec<_> = page.codes().into_iter().map(|code| (code.language, code.text)).collect();
    assert_eq!(codes, [(String::new(), "a\nb\n".to_owned()), ("sh".into(), "c\n".into())]);
    assert_eq!(page.anchors(), ["a-b-c-d-1000"]);
    assert_eq!((page.links(), page.spans()), (vec!["y.md#z"], vec!["b", "k", "d e"]));
    assert_eq!(page.rows(), [["`k`", "v"]]);
}
