//! `cargo xtask guests [--check]`: the example WASM guests from source.
//!
//! Without an argument the results replace `plugins/prebuilt/*.wasm`, and `plugins/prebuilt/BUILD` records the compiler
//! and the digests. With `--check` nothing is replaced: the results are compared with the prebuilt ones where the
//! compiler is the recorded one, and otherwise the host's tests run on them.
//!
//! The compiler is the installed one when it has the target `wasm32-unknown-unknown`. Elsewhere, on Debian, it is
//! Debian's `rustc-web` with the matching source of the standard library, unpacked under the target directory and not
//! installed; cargo and the linker stay the installed ones.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest, Sha256};

use crate::machine::{cargo, has, root, run as show_and_run, target_dir};

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds every guest, and replaces or checks the prebuilt ones.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("guests takes `--check` or nothing"),
    };
    let compiler = Compiler::find()?;
    let version = compiler.version()?;
    eprintln!("guests: compiling with {version}");
    let mut built = Vec::new();
    for guest in guests()? {
        built.push((guest.clone(), compiler.build(&guest)?));
    }
    let prebuilt = root().join("plugins/prebuilt");
    if check { compare(&prebuilt, &version, &built) } else { replace(&prebuilt, &version, &built) }
}

/// The names of the guests, which are those of their folders and packages.
fn guests() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("plugins/examples"))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn replace(prebuilt: &Path, version: &str, built: &[(String, PathBuf)]) -> Result<()> {
    std::fs::create_dir_all(prebuilt)?;
    let mut record = format!("{version}\n");
    for (name, path) in built {
        let bytes = std::fs::read(path)?;
        std::fs::write(prebuilt.join(format!("{name}.wasm")), &bytes)?;
        record.push_str(&format!("{}  {name}.wasm\n", digest(&bytes)));
    }
    std::fs::write(prebuilt.join("BUILD"), record)?;
    eprintln!("guests: {} in {}", built.len(), prebuilt.display());
    Ok(())
}

fn compare(prebuilt: &Path, version: &str, built: &[(String, PathBuf)]) -> Result<()> {
    let record = std::fs::read_to_string(prebuilt.join("BUILD")).context("plugins/prebuilt/BUILD")?;
    let mut lines = record.lines();
    let recorded = lines.next().unwrap_or_default();
    let digests: Vec<&str> = lines.collect();
    // The prebuilt files are what was recorded, whichever compiler is at hand.
    for (name, _) in built {
        let bytes = std::fs::read(prebuilt.join(format!("{name}.wasm")))?;
        if !digests.contains(&format!("{}  {name}.wasm", digest(&bytes)).as_str()) {
            bail!("plugins/prebuilt/{name}.wasm is not the file recorded in BUILD; run `cargo xtask guests`");
        }
    }
    if recorded != version {
        eprintln!("guests: the prebuilt ones were made by {recorded}, so digests are not compared");
        return test_fresh(built);
    }
    for (name, path) in built {
        if std::fs::read(path)? != std::fs::read(prebuilt.join(format!("{name}.wasm")))? {
            bail!(
                "plugins/prebuilt/{name}.wasm is not what its source gives; run `cargo xtask guests` and commit it"
            );
        }
    }
    eprintln!("guests: the prebuilt ones are what their source gives");
    Ok(())
}

/// Runs the host's tests on the guests just built.
fn test_fresh(built: &[(String, PathBuf)]) -> Result<()> {
    let fresh = target_dir().join("guests/fresh");
    std::fs::create_dir_all(&fresh)?;
    for (name, path) in built {
        std::fs::copy(path, fresh.join(format!("{name}.wasm")))?;
    }
    show_and_run(cargo().args(["test", "-p", "aqueduct-plugin-host"]).env("AQUEDUCT_GUESTS", &fresh))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What compiles the guests.
enum Compiler {
    /// The installed one.
    Installed,
    /// Debian's, unpacked here.
    Debian(PathBuf),
}

impl Compiler {
    fn find() -> Result<Self> {
        if sysroot()?.join("lib/rustlib").join(TARGET).join("lib").is_dir() {
            return Ok(Compiler::Installed);
        }
        let how = format!("run `rustup target add {TARGET}`");
        if !has("apt-get") || !has("dpkg-deb") {
            bail!("the compiler lacks the target {TARGET}; {how}");
        }
        let dir = target_dir().join("wasm-toolchain");
        if !dir.join("complete").exists() {
            unpack(&dir).with_context(|| format!("cannot get Debian's rustc-web; {how}"))?;
        }
        Ok(Compiler::Debian(dir))
    }

    fn rustc(&self) -> Command {
        match self {
            Compiler::Installed => Command::new("rustc"),
            Compiler::Debian(dir) => {
                let mut rustc = Command::new(dir.join("usr/bin/rustc"));
                rustc.env("LD_LIBRARY_PATH", libraries(dir));
                rustc
            }
        }
    }

    fn version(&self) -> Result<String> {
        output(self.rustc().arg("-V"))
    }

    /// Builds one guest and gives the module.
    fn build(&self, name: &str) -> Result<PathBuf> {
        let workspace = root().join("plugins");
        let out = target_dir().join("guests");
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
        let mut remap = vec![(root().to_owned(), "/src")];
        remap.extend(home.map(|home| (home, "/cargo")));
        let mut command = cargo();
        command.current_dir(&workspace).args([
            "build",
            "--locked",
            "--release",
            "--target",
            TARGET,
            "-p",
            name,
        ]);
        command.arg("--target-dir").arg(&out);
        // Whatever was set for the build of this program is not for the guests.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
            command.env_remove(name);
        }
        if let Compiler::Debian(dir) = self {
            let source = dir.join("usr/lib/rustlib/src/rust");
            remap.push((source.clone(), "/rust"));
            remap.push((std::fs::canonicalize(&source)?, "/rust"));
            command.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
            command.env("RUSTC", dir.join("usr/bin/rustc")).env("LD_LIBRARY_PATH", libraries(dir));
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker()?);
        }
        let flags = remap.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags.collect::<Vec<_>>().join(" "));
        show_and_run(&mut command)?;
        let module = out.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
        if !module.is_file() {
            bail!("the build of the guest `{name}` left no {}", module.display());
        }
        Ok(module)
    }
}

fn libraries(dir: &Path) -> PathBuf {
    dir.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}

/// The linker that comes with the installed compiler.
fn linker() -> Result<PathBuf> {
    let host = output(Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    let linker = sysroot()?.join("lib/rustlib").join(host).join("bin/rust-lld");
    if !linker.is_file() {
        bail!("the compiler comes without rust-lld; run `rustup target add {TARGET}`");
    }
    Ok(linker)
}

fn sysroot() -> Result<PathBuf> {
    output(Command::new("rustc").args(["--print", "sysroot"])).map(PathBuf::from)
}

/// Downloads Debian's packages and unpacks them; nothing is installed.
fn unpack(dir: &Path) -> Result<()> {
    let packages = dir.join("packages");
    std::fs::create_dir_all(&packages)?;
    // Needs root, and is needed only where the lists are stale or absent; the download says what is missing.
    if let Err(error) = Command::new("apt-get").args(["update", "-q"]).stdout(Stdio::null()).status() {
        eprintln!("guests: apt-get update: {error}");
    }
    let library =
        dependency("libstd-rust-web-dev", "libstd-rust-web-")?.context("libstd-rust-web-dev is not known")?;
    let mut wanted =
        vec!["rustc-web".to_owned(), "libstd-rust-web-dev".to_owned(), "rust-web-src".to_owned()];
    wanted.extend(dependency(&library, "libllvm")?);
    wanted.push(library);
    show_and_run(Command::new("apt-get").args(["download", "-q"]).args(&wanted).current_dir(&packages))?;
    for entry in std::fs::read_dir(&packages)? {
        let package = entry?.path();
        show_and_run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(dir))?;
        std::fs::remove_file(&package)?;
    }
    std::fs::write(dir.join("complete"), "")?;
    Ok(())
}

/// The package with this prefix on which `package` depends.
fn dependency(package: &str, prefix: &str) -> Result<Option<String>> {
    let listed = output(Command::new("apt-cache").args(["depends", package]))?;
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).next())
}

fn output(command: &mut Command) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
