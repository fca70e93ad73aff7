//! The commands and flags that the pages name are the program's, and the program's are named.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    pages::{self, Page},
    support::process::program,
};

/// The program's help; without a command, that of all.
fn help(command: Option<&str>) -> String {
    let args = command.into_iter().chain(["--help"]);
    let output = program(pages::root(), args).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of a text that are long flags.
fn flags(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !word(c)).filter_map(|word| word.strip_prefix("--"));
    let flags = words.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    flags.map(|name| format!("--{name}")).collect()
}

/// The flags of each command.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let help_of_all = help(None);
    let list = help_of_all.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(|name| (name.to_owned(), flags(&help(Some(name))))).collect()
}

/// The command lines of the program in a text, without what the shell takes for itself.
fn lines(text: &str) -> Vec<&str> {
    let after = text.lines().flat_map(|line| line.split("modal-gateway ").skip(1));
    after.map(|rest| rest.split(['|', '#', '>']).next().unwrap()).collect()
}

fn check(page: &Page, commands: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let codes = page.codes();
    let written = page.spans().into_iter().chain(codes.iter().map(|code| code.text.as_str()));
    let mut count = 0;
    for line in written.flat_map(lines) {
        let Some(name) = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) else {
            continue;
        };
        let known = commands.get(name).unwrap_or_else(|| panic!("{}: {line}: no command `{name}`", page.path));
        for flag in flags(line) {
            assert!(known.contains(&flag), "{}: {line}: `{name}` has no flag `{flag}`", page.path);
        }
        count += 1;
    }
    // A flag alone may be any command's.
    for span in page.spans().into_iter().filter(|span| span.starts_with("--") && !span.starts_with("-- ")) {
        for flag in flags(span) {
            assert!(commands.values().any(|known| known.contains(&flag)), "{}: no flag `{flag}`", page.path);
        }
    }
    count
}

#[test]
fn every_command_and_flag_that_a_page_names_is_there() {
    let commands = commands();
    let count: usize = pages::all().iter().map(|page| check(page, &commands)).sum();
    assert!(count > 30, "only {count} command lines were found");
}

#[test]
fn every_command_and_flag_is_on_its_page() {
    let (cli, settings) = (pages::page("docs/cli.md"), pages::page("docs/settings.md"));
    let named: BTreeSet<String> = cli.spans().into_iter().chain(settings.spans()).flat_map(flags).collect();
    let commands = commands();
    assert!(commands.len() > 10, "{:?}", commands.keys());
    for (name, known) in commands {
        let row = cli.rows().into_iter().find(|cells| cells[0].starts_with(&format!("`modal-gateway {name}")));
        assert!(row.is_some(), "docs/cli.md has no row of `{name}`");
        for flag in known.difference(&named) {
            assert!(["--help", "--version"].contains(&flag.as_str()), "no page has `{flag}` of `{name}`");
        }
    }
}
