//! References in configs: `${env:NAME}`, `${file:PATH}`, `${file:PATH:KEY}`, `${dir:DIR:NAME}`.
//!
//! **Invariant:** for a connector made over REST nothing is read outside the prefixes given at start.

use std::path::{Component, Path, PathBuf};

use aqueduct_core::config::reference::{Reference, Resolver};

use crate::config::{Origin, RestTrust};

const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads the environment and files, as far as the connector's origin allows.
#[derive(Clone, Debug)]
pub struct ReferenceResolver {
    limits: Option<RestTrust>,
}

impl ReferenceResolver {
    /// For connectors of that origin.
    pub fn new(origin: Origin, rest: &RestTrust) -> Self {
        match origin {
            Origin::File => Self::trusted(),
            Origin::Rest => Self { limits: Some(rest.clone()) },
        }
    }

    /// Without limits, for files named on the command line.
    pub fn trusted() -> Self {
        Self { limits: None }
    }

    fn env(&self, name: &str) -> Result<String, String> {
        if let Some(limits) = &self.limits
            && !limits.env.iter().any(|prefix| name.starts_with(prefix.as_str()))
        {
            return Err(format!(
                "the environment variable `{name}` may not be read by connectors made over REST; start with \
                 `--allow-env {name}` to allow it"
            ));
        }
        match std::env::var(name) {
            Ok(text) => Ok(text),
            Err(std::env::VarError::NotPresent) => {
                Err(format!("the environment variable `{name}` is not set; set it before the start"))
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable `{name}` is not UTF-8"))
            }
        }
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        let shown = path.display();
        let path = self.allowed(path)?;
        let failed = |error: std::io::Error| format!("cannot read the file `{shown}`: {}", reason(&error));
        let meta = std::fs::metadata(&path).map_err(failed)?;
        if !meta.is_file() {
            return Err(format!("`{shown}` is not a file"));
        }
        if meta.len() > MAX_FILE_BYTES {
            return Err(format!("the file `{shown}` is larger than 1 MiB"));
        }
        std::fs::read_to_string(&path).map_err(failed)
    }

    /// Whether a connector may use this file or directory, which need not exist yet.
    pub(crate) fn permits(&self, path: &Path) -> Result<(), String> {
        let exists = path.ancestors().find(|part| part.exists()).unwrap_or(path);
        if path.components().any(|part| part == Component::ParentDir) {
            return self.allowed(path).map(|_| ());
        }
        self.allowed(if exists.as_os_str().is_empty() { Path::new(".") } else { exists }).map(|_| ())
    }

    fn allowed(&self, path: &Path) -> Result<PathBuf, String> {
        let Some(limits) = &self.limits else { return Ok(path.to_path_buf()) };
        let refused = || {
            format!(
                "`{}` may not be used by connectors made over REST; start with `--allow-path DIR` to allow a directory",
                path.display()
            )
        };
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(refused());
        }
        // Links are followed before the comparison, so that none leads outside.
        let real = std::fs::canonicalize(path).map_err(|_| refused())?;
        let inside = limits.paths.iter().filter_map(|dir| std::fs::canonicalize(dir).ok());
        if inside.into_iter().any(|dir| real.starts_with(dir)) { Ok(real) } else { Err(refused()) }
    }
}

impl Resolver for ReferenceResolver {
    fn resolve(&self, reference: &Reference<'_>) -> Result<String, String> {
        match (reference.provider, reference.key) {
            ("env", None) => self.env(reference.path),
            ("env", Some(_)) => Err("write `${env:NAME}`: a name has no `:`".into()),
            ("file", None) => self.read(Path::new(reference.path)).map(without_line_end),
            ("file", Some(key)) => {
                let text = self.read(Path::new(reference.path))?;
                property(&text, key)
                    .ok_or_else(|| format!("the file `{}` has no key `{key}`", reference.path))
            }
            ("dir", Some(name)) if !name.contains('/') => {
                self.read(&Path::new(reference.path).join(name)).map(without_line_end)
            }
            ("dir", _) => Err("write `${dir:DIR:NAME}`".into()),
            (other, _) => Err(format!("unknown kind of reference `{other}`; known are `env`, `file`, `dir`")),
        }
    }
}

/// The error without the number of the operating system.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Secrets are written with editors, which end the last line.
fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// The value of a key in a properties file: the last one wins; `=`, `:` or blanks separate.
fn property(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', '!']));
    lines.rev().find_map(|line| {
        let end = line.find(|c: char| c == '=' || c == ':' || c.is_whitespace())?;
        let (name, rest) = line.split_at(end);
        let rest = rest.trim_start();
        let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
        (name == key).then(|| value.trim_start().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use aqueduct_core::config::reference::resolve_text;

    use super::*;

    #[test]
    fn files_keys_and_directories_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("all"), "hunter2\n").expect("written");
        std::fs::write(dir.path().join("p.properties"), "# c\na = 1\nb:two words\n a=3\n").expect("written");
        let resolver = ReferenceResolver::trusted();
        let at = dir.path().display();
        let text = |text: String| resolve_text(&text, &resolver).map(|resolved| resolved.text);
        assert_eq!(text(format!("x${{file:{at}/all}}y")), Ok("xhunter2y".into()));
        assert_eq!(text(format!("${{file:{at}/p.properties:a}}")), Ok("3".into()));
        assert_eq!(text(format!("${{file:{at}/p.properties:b}}")), Ok("two words".into()));
        assert_eq!(text(format!("${{dir:{at}:all}}")), Ok("hunter2".into()));
        let missing = text(format!("${{file:{at}/none}}")).expect_err("no such file");
        assert!(missing.contains("does not exist"), "{missing}");
        assert!(text("${env:AQUEDUCT_NOT_SET_ANYWHERE}".into()).expect_err("unset").contains("is not set"));
    }

    #[test]
    fn connectors_made_over_rest_reach_only_what_was_allowed() {
        let dir = tempfile::tempdir().expect("a directory");
        let inside = dir.path().join("inside");
        std::fs::create_dir(&inside).expect("made");
        std::fs::write(inside.join("s"), "yes").expect("written");
        std::fs::write(dir.path().join("s"), "no").expect("written");
        let nothing = ReferenceResolver::new(Origin::Rest, &RestTrust::default());
        assert!(resolve_text("${env:PATH}", &nothing).expect_err("refused").contains("--allow-env"));
        let trust = RestTrust { env: vec!["PA".into()], paths: vec![inside.clone()] };
        let some = ReferenceResolver::new(Origin::Rest, &trust);
        assert!(resolve_text("${env:PATH}", &some).is_ok());
        assert!(resolve_text("${env:HOME}", &some).is_err());
        assert!(resolve_text(&format!("${{file:{}/s}}", inside.display()), &some).is_ok());
        assert!(resolve_text(&format!("${{file:{}/../s}}", inside.display()), &some).is_err());
        assert!(resolve_text(&format!("${{file:{}/s}}", dir.path().display()), &some).is_err());
        assert!(some.permits(&inside.join("not/yet/there")).is_ok());
        assert!(some.permits(&inside.join("../out")).is_err());
        assert!(some.permits(&dir.path().join("out")).is_err());
        assert!(nothing.permits(Path::new("/tmp/out")).is_err());
        assert!(ReferenceResolver::trusted().permits(Path::new("/tmp/out")).is_ok());
    }
}
