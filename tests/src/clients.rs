//! Real Kafka clients of other languages, found or installed once into the cache.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

use crate::postgres::{cache_dir, run};

/// A Python with `confluent-kafka` and `kafka-python`; `None`, said by name, where it cannot be had.
pub fn python(test: &str) -> Option<PathBuf> {
    match python_environment() {
        Ok(python) => Some(python),
        Err(error) => {
            crate::require::not_run("python-clients", test, &format!("{error:#}"));
            None
        }
    }
}

fn python_environment() -> Result<PathBuf> {
    let packages = [
        "confluent-kafka==2.16.1",
        "kafka-python==3.0.12",
        "python-snappy==0.7.3",
        "lz4==4.4.5",
        "zstandard==0.25.0",
    ];
    environment("python-clients-2", &packages)
}

/// The Python of a virtual environment with these packages, made once. A broken installation is never taken for a whole
/// one: the mark comes last.
pub(crate) fn environment(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let dir = cache_dir().join(name);
    let python = dir.join("bin/python");
    if !dir.join("complete").exists() {
        std::fs::create_dir_all(cache_dir())?;
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir)).context("python3 with venv is needed")?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(packages))?;
        std::fs::write(dir.join("complete"), "")?;
    }
    Ok(python)
}

/// Debian's kcat; `None`, said by name, where it is not installed.
pub fn kcat(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("kcat")).find(|kcat| kcat.exists());
    if found.is_none() {
        crate::require::not_run("kcat", test, "`apt-get install kcat` brings it");
    }
    found
}

/// The class path of the compiled Java client test; `None`, said by name, where Java 17 or Maven is missing.
pub fn java(test: &str) -> Option<String> {
    // Once: a running JVM must not find half a class.
    static CLASSES: OnceLock<Result<String, String>> = OnceLock::new();
    match CLASSES.get_or_init(|| java_classes().map_err(|error| format!("{error:#}"))) {
        Ok(classes) => Some(classes.clone()),
        Err(error) => {
            crate::require::not_run("java-client", test, error);
            None
        }
    }
}

fn java_classes() -> Result<String> {
    let dir = cache_dir().join("java-client-1");
    std::fs::create_dir_all(dir.join("classes"))?;
    let source = crate::process::root().join("tests/tests/clients");
    if !dir.join("complete").exists() {
        run(Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(source.join("pom.xml"))
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", dir.join("lib").display())))
        .context("Maven is needed")?;
        std::fs::write(dir.join("complete"), "")?;
    }
    let lib = format!("{}/*", dir.join("lib").display());
    let classes = dir.join("classes");
    run(Command::new("javac")
        .arg("-d")
        .arg(&classes)
        .args(["-cp", &lib])
        .args(["RoundTrip.java", "Member.java"].map(|file| source.join(file))))
    .context("a JDK of Java 17 or newer is needed")?;
    Ok(format!("{}:{lib}", classes.display()))
}
