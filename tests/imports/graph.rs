//! Which file of a crate takes which names from which other, by its `use` lines. A name that a module passes on counts
//! as taken from the file that defines it. What is compiled for tests only is left out.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, Item, UseTree};

/// A module: its children and what its `use` lines bring in, by name.
struct Module {
    file: String,
    parent: usize,
    children: HashMap<String, usize>,
    uses: Vec<(String, Vec<String>)>,
}

/// Files, and the names that the first takes from the second.
pub struct Graph {
    pub edges: BTreeMap<(String, String), Vec<String>>,
}

impl Graph {
    /// Reads the crate whose `lib.rs` and `main.rs` are in `root`.
    pub fn read(root: &Path) -> Self {
        let mut modules = Modules { root: root.to_owned(), all: Vec::new() };
        modules.add(&root.join("lib.rs"), root, 0);
        let mut edges: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (index, module) in modules.all.iter().enumerate() {
            for (name, path) in &module.uses {
                let Some(to) = modules.resolve(index, path, 0) else { continue };
                let to = &modules.all[to].file;
                if *to != module.file {
                    edges.entry((module.file.clone(), to.clone())).or_default().push(name.clone());
                }
            }
        }
        Self { edges }
    }

    /// Sets of files that import each other, the largest first.
    pub fn rings(&self) -> Vec<Vec<String>> {
        let mut files: Vec<_> = self.edges.keys().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect();
        files.sort_unstable();
        files.dedup();
        let reached: HashMap<_, _> = files.iter().map(|file| (*file, self.reach(file))).collect();
        let mut rings: Vec<Vec<String>> = Vec::new();
        for file in &files {
            if rings.iter().any(|ring| ring.iter().any(|other| other == file)) {
                continue;
            }
            let ring: Vec<_> = files
                .iter()
                .filter(|other| reached[file].contains(*other) && reached[*other].contains(file))
                .map(ToString::to_string)
                .collect();
            if !ring.is_empty() {
                rings.push(ring);
            }
        }
        rings.sort_by_key(|ring| std::cmp::Reverse(ring.len()));
        rings
    }

    /// What ties a ring, one import a line.
    pub fn describe(&self, ring: &[String]) -> String {
        let inside = |file: &String| ring.contains(file);
        let ties = self.edges.iter().filter(|((from, to), _)| inside(from) && inside(to));
        ties.map(|((from, to), names)| format!("{from} takes {} from {to}", names.join(", ")))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The files that imports lead to from `file`.
    fn reach<'a>(&'a self, file: &'a str) -> Vec<&'a str> {
        let (mut found, mut open) = (Vec::new(), vec![file]);
        while let Some(next) = open.pop() {
            for (from, to) in self.edges.keys() {
                if from == next && !found.contains(&to.as_str()) {
                    found.push(to);
                    open.push(to);
                }
            }
        }
        found
    }
}

struct Modules {
    root: PathBuf,
    all: Vec<Module>,
}

impl Modules {
    /// Adds the module in `file`, whose children's files are in `folder`.
    fn add(&mut self, file: &Path, folder: &Path, parent: usize) -> usize {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let items = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items;
        let name = file.strip_prefix(&self.root).unwrap().to_str().unwrap().to_owned();
        self.fill(name, folder, parent, items)
    }

    fn fill(&mut self, file: String, folder: &Path, parent: usize, items: Vec<Item>) -> usize {
        let index = self.all.len();
        self.all.push(Module { file, parent, children: HashMap::new(), uses: Vec::new() });
        for item in items {
            match item {
                Item::Use(item) if !is_test(&item.attrs) => {
                    flatten(&item.tree, &mut Vec::new(), &mut self.all[index].uses);
                }
                Item::Mod(item) if !is_test(&item.attrs) => {
                    let name = item.ident.to_string();
                    let inner = folder.join(&name);
                    let child = match item.content {
                        Some((_, items)) => self.fill(self.all[index].file.clone(), &inner, index, items),
                        None => self.add(&folder.join(format!("{name}.rs")), &inner, index),
                    };
                    self.all[index].children.insert(name, child);
                }
                _ => {}
            }
        }
        index
    }

    /// The module that defines what `path` names in `module`; `None` where that is another crate.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        assert!(depth < 20, "{path:?} leads round in a circle");
        let (mut at, mut rest) = match path[0].as_str() {
            "crate" => (0, &path[1..]),
            "self" => (module, &path[1..]),
            "super" => (self.all[module].parent, &path[1..]),
            name if self.all[module].children.contains_key(name) => (module, path),
            _ => return None,
        };
        while let Some((name, further)) = rest.split_first() {
            if name == "super" {
                at = self.all[at].parent;
            } else if let Some(child) = self.all[at].children.get(name) {
                at = *child;
            } else if let Some((_, passed)) = self.all[at].uses.iter().find(|(known, _)| known == name) {
                let whole: Vec<_> = passed.iter().chain(further).cloned().collect();
                return self.resolve(at, &whole, depth + 1);
            } else {
                break;
            }
            rest = further;
        }
        Some(at)
    }
}

fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("cfg") && attr.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

/// The names that a `use` line brings in, each with its whole path. A glob brings in the module itself.
fn flatten(tree: &UseTree, path: &mut Vec<String>, into: &mut Vec<(String, Vec<String>)>) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            flatten(&part.tree, path, into);
            path.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, path, into)),
        UseTree::Name(name) if name.ident == "self" => {
            into.push((path.last().cloned().unwrap_or_default(), path.clone()));
        }
        UseTree::Name(name) => into.push((name.ident.to_string(), with(path, &name.ident))),
        UseTree::Rename(name) => into.push((name.rename.to_string(), with(path, &name.ident))),
        UseTree::Glob(_) => into.push(("*".into(), path.clone())),
    }
}

fn with(path: &[String], name: &syn::Ident) -> Vec<String> {
    path.iter().cloned().chain([name.to_string()]).collect()
}
