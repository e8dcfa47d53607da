//! The rules of the house that a machine can check.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::architecture;
use crate::machine::root;

/// Where `unsafe` is allowed, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("plugins/host/src/", "loading the compiled-code cache, which only the service writes"),
    ("broker/server/src/net/", "sendfile"),
];

/// Lines of code before the tests of a file; a file of more has a second concept in it.
const MAX_LINES: usize = 700;

/// Checks everything and prints every violation.
pub(crate) fn run() -> Result<()> {
    let mut wrong = architecture::check()?;
    let mut files = Vec::new();
    for dir in ["core", "broker", "connect", "connectors", "transforms", "plugins", "cli", "tests", "xtask"] {
        collect(&root().join(dir), &mut files)?;
    }
    for file in &files {
        let name = file.strip_prefix(root())?.display().to_string();
        wrong.extend(check_file(&name, &std::fs::read_to_string(file)?));
    }
    for line in &wrong {
        eprintln!("tidy: {line}");
    }
    if !wrong.is_empty() {
        bail!("{} rules are broken", wrong.len());
    }
    Ok(())
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, into)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn check_file(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let generated = name.contains("/gen/");
    if !text.starts_with("//!") && !generated && !name.ends_with("tests.rs") {
        wrong.push(format!("{name}: begins without `//!` saying what it is"));
    }
    let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    if code > MAX_LINES && !generated && !name.contains("/tests/") {
        wrong.push(format!("{name}: {code} lines before its tests; split it by concept"));
    }
    let is_unsafe =
        |line: &str| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
    let allowed =
        UNSAFE.iter().any(|(path, _)| name.starts_with(path)) || name.starts_with("xtask/src/tidy.rs");
    if text.lines().any(is_unsafe) && !allowed {
        wrong.push(format!("{name}: unsafe code outside the places listed in xtask/src/tidy.rs"));
    }
    if name.ends_with("/mod.rs") {
        wrong.push(format!("{name}: name it after its module, beside the folder"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_rules_are_named() {
        let long = format!("//! Doc.\n{}", "fn f() {}\n".repeat(MAX_LINES));
        assert_eq!(check_file("core/src/a.rs", &long).len(), 1);
        assert_eq!(check_file("core/src/a.rs", "fn f() {}").len(), 1);
        assert_eq!(check_file("core/src/a.rs", "//! Doc.\nfn f() { unsafe { g() } }").len(), 1);
        assert_eq!(check_file("core/src/a.rs", "//! Doc.\nfn f() {}"), Vec::<String>::new());
    }
}
