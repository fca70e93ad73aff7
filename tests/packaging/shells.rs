//! Completions and manual pages, as shells and `man` take them.

use std::{fs, path::PathBuf, process::Command};

use crate::{installed, run, support::process::program};

/// What the program prints, in a file of a new folder.
fn printed(args: &[&str], name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, run(&mut program(folder.path(), args))).unwrap();
    (folder, path)
}

#[test]
fn bash_completes_commands_and_flags() {
    let (_folder, script) = printed(&["completions", "bash"], "modal-gateway");
    let completed = |words: &[&str]| {
        let call = format!(
            "source {}; complete=($(complete -p modal-gateway));
             for at in ${{!complete[@]}}; do [ \"${{complete[at]}}\" = -F ] && function=${{complete[at + 1]}}; done
             COMP_WORDS=({}); COMP_CWORD={}
             $function modal-gateway \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"
             echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.join(" "),
            words.len() - 1
        );
        run(Command::new("bash").args(["--norc", "-c", &call])).trim().to_owned()
    };
    assert_eq!(completed(&["modal-gateway", "ser"]), "serve");
    assert_eq!(completed(&["modal-gateway", "serve", "--database-u"]), "--database-url --database-url-file");
    assert_eq!(completed(&["modal-gateway", "sync", "--mode", "h"]), "headers");
}

#[test]
fn fish_completes_commands_and_flags() {
    if !installed("fish") {
        return;
    }
    let (folder, script) = printed(&["completions", "fish"], "modal-gateway.fish");
    let completed = |line: &str| {
        let call = format!("source {}; complete -C'{line}'", script.display());
        run(Command::new("fish").args(["--no-config", "-c", &call]).env("HOME", folder.path()))
    };
    assert!(completed("modal-gateway ser").starts_with("serve\t"), "{}", completed("modal-gateway ser"));
    assert!(completed("modal-gateway serve --database-u").contains("--database-url-file\t"));
}

#[test]
fn zsh_reads_its_completions() {
    if !installed("zsh") {
        return;
    }
    let (folder, script) = printed(&["completions", "zsh"], "_modal-gateway");
    assert!(fs::read_to_string(&script).unwrap().starts_with("#compdef modal-gateway\n"));
    let load = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D
         whence -v _modal-gateway; autoload +X _modal-gateway",
        folder.path().display()
    );
    let said = run(Command::new("zsh").args(["-f", "-c", &load]).env("HOME", folder.path()));
    assert!(said.contains("_modal-gateway is an autoload shell function"), "{said}");
}

#[test]
fn man_shows_a_page_for_the_program_and_for_each_command() {
    if !installed("man") {
        return;
    }
    let help = run(&mut program(&std::env::temp_dir(), ["--help"]));
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<_> = names.filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(names.len() > 10, "{names:?}");
    for name in std::iter::once(None).chain(names.iter().map(Some)) {
        let args: Vec<&str> = std::iter::once("man").chain(name.copied()).collect();
        let (folder, page) = printed(&args, "page.1");
        let mut man = Command::new("man");
        man.args(["--warnings", "--no-hyphenation", "--local-file"])
            .arg(&page)
            .env("MANWIDTH", "100")
            .env("HOME", folder.path());
        let output = man.env("LC_ALL", "C.UTF-8").output().unwrap();
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.success() && said.is_empty(), "{name:?} {said}");
        let title = name.map_or("modal-gateway".to_owned(), |name| format!("modal-gateway-{name}"));
        assert!(words.contains(&format!("NAME {title} - ")), "{text}");
        assert!(text.contains("--database-url"), "{name:?} has no shared options\n{text}");
        // A command line of the examples is on a line of its own.
        assert!(
            name.is_some_and(|name| ["demo", "migrate", "openapi"].contains(name))
                || text.contains("\n         modal-gateway "),
            "{text}"
        );
        if name.is_none() {
            assert!(names.iter().all(|name| text.contains(&format!("modal-gateway-{name}(1)"))), "{text}");
        }
    }
}
