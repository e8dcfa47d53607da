//! The machine: running commands, and installing what the tests need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Cargo, as it was called.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The target directory of this build.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs it with its output shown; a failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", show(command));
    let status = command.status().with_context(|| format!("cannot run `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", show(command));
    }
    Ok(())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether a program is on the PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Debian packages that the tests use and the machine lacks, installed where that is possible: on Debian, as root.
/// Elsewhere the tests that miss something say so by name.
pub(crate) fn install_packages() {
    let mut wanted = Vec::new();
    if !Path::new("/usr/lib/postgresql").exists() && !has("initdb") {
        wanted.push("postgresql");
    }
    if !has("python3")
        || !Command::new("python3")
            .args(["-c", "import ensurepip"])
            .output()
            .is_ok_and(|o| o.status.success())
    {
        wanted.push("python3-venv");
    }
    if !has("kcat") {
        wanted.push("kcat");
    }
    install(&wanted);
}

/// Debian packages, where that is possible.
pub(crate) fn install(wanted: &[&str]) {
    if wanted.is_empty() || !has("apt-get") || !is_root() {
        return;
    }
    eprintln!("installing {}", wanted.join(" "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).args(&wanted[..if args.contains(&"install") { wanted.len() } else { 0 }]);
        command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()).status()
    };
    for args in [&["update", "-q"][..], &["install", "-q", "-y", "--no-install-recommends"]] {
        if !apt(args).is_ok_and(|status| status.success()) {
            eprintln!(
                "apt-get {} failed; the tests that need {} will not run",
                args[0],
                wanted.join(" and ")
            );
            return;
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}
