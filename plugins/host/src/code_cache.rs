//! Compiled code on disk, so that a start need not compile.
//!
//! A file is `sha256(code)` followed by the code, named by the digest of the module and the hash of the engine's
//! settings, and put in place by rename.
//!
//! **Invariant:** only code that this process's user wrote is ever loaded: the directory must be private, and the code
//! must match its digest. A user's own compiled code is never accepted.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

const DIGEST: usize = 32;

/// A private directory of compiled code.
pub(crate) struct CodeCache {
    dir: PathBuf,
}

impl CodeCache {
    /// Opens the directory, made where it is missing; `None`, with a warning, where it cannot be trusted.
    pub(crate) fn open(dir: &Path) -> Option<Self> {
        match private(dir) {
            Ok(()) => Some(Self { dir: dir.to_owned() }),
            Err(why) => {
                tracing::warn!("compiled plugins are not cached: `{}` {why}", dir.display());
                None
            }
        }
    }

    /// The compiled form of the module with this digest, if it is there and whole.
    pub(crate) fn load(&self, engine: &Engine, digest: &[u8]) -> Option<Component> {
        let stored = std::fs::read(self.path(engine, digest)).ok()?;
        let (sum, code) = stored.split_at_checked(DIGEST)?;
        if Sha256::digest(code).as_slice() != sum {
            return None;
        }
        deserialize(engine, code)
    }

    /// Keeps it. A failure costs a compilation at the next start, so it is no error.
    pub(crate) fn store(&self, engine: &Engine, digest: &[u8], component: &Component) {
        let stored = component.serialize().map_err(|error| error.to_string()).and_then(|code| {
            let path = self.path(engine, digest);
            // Two processes may write the same file; each renames its own.
            let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
            let write = || -> std::io::Result<()> {
                let mut file = std::fs::File::create(&temporary)?;
                file.write_all(&Sha256::digest(&code))?;
                file.write_all(&code)?;
                file.sync_all()?;
                std::fs::rename(&temporary, &path)
            };
            write().map_err(|error| {
                // Nothing more can be done about it.
                drop(std::fs::remove_file(&temporary));
                error.to_string()
            })
        });
        if let Err(why) = stored {
            tracing::warn!("cannot keep a compiled plugin in `{}`: {why}", self.dir.display());
        }
    }

    fn path(&self, engine: &Engine, digest: &[u8]) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.dir.join(format!("{}-{:016x}.cwasm", hex::encode(digest), hasher.finish()))
    }
}

#[expect(
    unsafe_code,
    reason = "loading compiled code; `CodeCache` takes only what this user wrote, checked by digest"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: the code lies in a directory that only this user can write, was written there by `store` from a
    // compilation of ours, and is whole by its digest; wasmtime itself refuses other versions and settings.
    unsafe { Component::deserialize(engine, code) }.ok()
}

#[cfg(unix)]
fn private(dir: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| format!("cannot be made: {error}"))?;
    let found = std::fs::symlink_metadata(dir).map_err(|error| format!("cannot be read: {error}"))?;
    if !found.is_dir() {
        return Err("is not a directory".into());
    }
    if found.mode() & 0o022 != 0 {
        return Err("can be written by others; make it private with `chmod 700`".into());
    }
    // Who we are shows with a file that we make.
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    let ours = std::fs::File::create(&probe).and_then(|file| file.metadata());
    drop(std::fs::remove_file(&probe));
    match ours {
        Ok(ours) if ours.uid() == found.uid() => Ok(()),
        Ok(_) => Err("belongs to another user".into()),
        Err(error) => Err(format!("cannot be written: {error}")),
    }
}

#[cfg(not(unix))]
fn private(_: &Path) -> Result<(), String> {
    Err("cannot be checked to be private on this system".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
        assert!(CodeCache::open(dir.path()).is_none());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("ours");
        assert!(CodeCache::open(dir.path()).is_some());
    }

    #[test]
    fn damaged_code_is_not_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = CodeCache::open(&dir.path().join("code")).expect("private");
        let engine = crate::engine::shared().expect("an engine").engine();
        let component = Component::new(engine, wat::parse_str("(component)").expect("text"))
            .expect("the empty component");
        let digest = Sha256::digest(b"(component)");
        cache.store(engine, &digest, &component);
        assert!(cache.load(engine, &digest).is_some());
        let path = cache.path(engine, &digest);
        let mut stored = std::fs::read(&path).expect("stored");
        let last = stored.len() - 1;
        stored[last] ^= 1;
        std::fs::write(&path, &stored).expect("ours");
        assert!(cache.load(engine, &digest).is_none());
        std::fs::write(&path, []).expect("ours");
        assert!(cache.load(engine, &digest).is_none());
    }
}
