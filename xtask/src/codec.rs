//! `cargo xtask codec [--check|--compare]`: writes the Kafka messages of `broker/wire` from their notation.
//!
//! Every file in `broker/wire/messages` becomes one module in `broker/wire/src/messages`; with `--check` nothing is
//! written and any difference is an error; `--compare` compares the notation with Kafka's own definitions. `broker/wire/messages/README.md` describes the notation.
//!
//! **Invariant:** the output depends on the notation alone and is rustfmt-clean.

/// Adds a formatted line to a string of code.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        $out.push_str(&format!($($arg)*));
        $out.push('\n');
    }};
}

mod compare;
mod emit;
mod emit_tables;
mod emit_values;
mod notation;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::machine::root;

/// Runs the command with what follows `codec` on the command line.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        [flag] if flag == "--compare" => {
            return compare::run(&read_notation(&root().join("broker/wire/messages"))?);
        }
        _ => bail!("usage: cargo xtask codec [--check|--compare]"),
    };
    let root = root();
    let files = read_notation(&root.join("broker/wire/messages"))?;
    let out = root.join("broker/wire/src");
    let mut drift = Vec::new();
    let mut generated = BTreeMap::new();
    for (path, code) in emit::sources(&files)? {
        generated.insert(out.join(path), rustfmt(root, &code)?);
    }
    for (path, code) in &generated {
        let present = std::fs::read_to_string(path).unwrap_or_default();
        if present != *code {
            drift.push(path.clone());
            if !check {
                std::fs::create_dir_all(out.join("messages"))?;
                std::fs::write(path, code).with_context(|| format!("cannot write `{}`", path.display()))?;
            }
        }
    }
    let stale = stale_files(&out.join("messages"), &generated)?;
    if !check {
        for path in &stale {
            std::fs::remove_file(path)?;
        }
        println!("codec: {} files, {} changed", generated.len(), drift.len() + stale.len());
        return Ok(());
    }
    drift.extend(stale);
    ensure!(
        drift.is_empty(),
        "generated messages differ from their notation, run `cargo xtask codec`: {drift:?}"
    );
    println!("codec: {} files are up to date", generated.len());
    Ok(())
}

fn read_notation(dir: &Path) -> Result<Vec<notation::File>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read `{}`", dir.display()))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path)?;
            let name = path.file_stem().and_then(|s| s.to_str()).context("file name is not UTF-8")?;
            notation::File::parse(name, &text).with_context(|| format!("in `{}`", path.display()))
        })
        .collect()
}

/// Generated files whose notation is gone.
fn stale_files(dir: &Path, generated: &BTreeMap<PathBuf, String>) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut stale = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !generated.contains_key(&path) {
            stale.push(path);
        }
    }
    Ok(stale)
}

fn rustfmt(root: &Path, code: &str) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--config-path"])
        .arg(root.join("rustfmt.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt, install it with `rustup component add rustfmt`")?;
    child.stdin.take().context("stdin is piped")?.write_all(code.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "rustfmt refused generated code:\n{code}");
    Ok(String::from_utf8(output.stdout)?)
}
