//! A module file on its way to a component that can be instantiated.
//!
//! A component is taken as it is; a plain core module made with the SDK is wrapped into one here, so that nobody needs
//! another tool. Imports of `wasi:*` get functions that trap; other unknown imports are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, Result};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker, LinkerInstance, ResourceType};

use crate::bindings::{TransformPlugin, TransformPluginPre};
use crate::code_cache::CodeCache;
use crate::engine;
use crate::guest::State;

/// A larger file is no transform.
const MAX_FILE: u64 = 64 << 20;

/// Modules kept ready in memory; a process uses a few, each in many tasks.
const READY: usize = 16;

/// A module ready to be instantiated.
pub(crate) struct Module {
    pub(crate) name: Arc<str>,
    pub(crate) pre: TransformPluginPre<State>,
}

/// Loads modules, each once.
pub(crate) struct Modules {
    cache_dir: Option<PathBuf>,
    ready: Mutex<Vec<([u8; 32], Arc<Module>)>>,
}

impl Modules {
    /// With a directory for compiled code, or without.
    pub(crate) fn new(cache_dir: Option<PathBuf>) -> Self {
        Self { cache_dir, ready: Mutex::new(Vec::new()) }
    }

    /// The module in this file.
    pub(crate) fn load(&self, path: &Path) -> Result<Arc<Module>> {
        let bytes = read(path)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if let Some((_, module)) = self.ready.lock().iter().find(|(known, _)| *known == digest) {
            return Ok(Arc::clone(module));
        }
        let wrong = |what: String| Error::bad_config(format!("`module`: `{}` {what}", path.display()));
        let engine = engine::shared()?.engine();
        let cache = self.cache_dir.as_deref().and_then(CodeCache::open);
        let component = match cache.as_ref().and_then(|cache| cache.load(engine, &digest)) {
            Some(component) => component,
            None => {
                let encoded = encode(&bytes).map_err(wrong)?;
                let component = Component::new(engine, encoded.as_deref().unwrap_or(&bytes))
                    .map_err(|error| wrong(format!("does not compile: {error:#}")))?;
                if let Some(cache) = &cache {
                    cache.store(engine, &digest, &component);
                }
                component
            }
        };
        let pre = link(engine, &component).map_err(|error| {
            wrong(format!(
                "does not fit `aqueduct:transform@0.1.0`: {error:#}; build it with the SDK of this version"
            ))
        })?;
        let name = path.file_name().map_or_else(|| "module".into(), |name| name.to_string_lossy().into());
        let module = Arc::new(Module { name, pre });
        let mut ready = self.ready.lock();
        if ready.len() == READY {
            ready.remove(0);
        }
        ready.push((digest, Arc::clone(&module)));
        Ok(module)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::bad_config(format!(
            "`module`: there is no file `{shown}`; give the path of a `.wasm` file built with the plugin SDK"
        )),
        _ => Error::bad_config(format!("`module`: cannot read `{shown}`: {error}")),
    };
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(Error::bad_config(format!("`module`: `{shown}` is not a file")));
    }
    if found.len() > MAX_FILE {
        let size = found.len();
        return Err(Error::bad_config(format!(
            "`module`: `{shown}` has {size} bytes; the limit is {MAX_FILE}"
        )));
    }
    std::fs::read(path).map_err(failed)
}

/// The component around a core module; `None` when the bytes are a component already.
fn encode(bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    // The preamble: `\0asm`, then version 1 and layer 0 for a core module, layer 1 for a component.
    match bytes.get(..8) {
        Some(b"\0asm\x01\0\0\0") => {}
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => return Ok(None),
        _ => return Err("is not a WebAssembly module".into()),
    }
    let encoder = wit_component::ComponentEncoder::default().validate(true).module(bytes);
    let encoded = encoder.and_then(|mut encoder| encoder.encode());
    encoded.map(Some).map_err(|error| {
        format!("is a core module that does not follow the plugin interface: {error:#}; build it with the plugin SDK")
    })
}

fn link(engine: &Engine, component: &Component) -> wasmtime::Result<TransformPluginPre<State>> {
    let mut linker = Linker::new(engine);
    TransformPlugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    let ty = component.component_type();
    for (name, import) in ty.imports(engine) {
        if name.starts_with("wasi:")
            && let ComponentItem::ComponentInstance(interface) = import.ty
        {
            let mut instance = linker.instance(name)?;
            for (item, export) in interface.exports(engine) {
                stub(&mut instance, name, item, &export.ty)?;
            }
        }
    }
    TransformPluginPre::new(linker.instantiate_pre(component)?)
}

/// Toolchains import WASI for panics and standard streams, whether it is used or not.
fn stub(
    linker: &mut LinkerInstance<'_, State>,
    interface: &str,
    item: &str,
    ty: &ComponentItem,
) -> wasmtime::Result<()> {
    match ty {
        ComponentItem::ComponentFunc(_) => {
            let what = format!("`{interface}#{item}` is not granted to plugins");
            linker.func_new(item, move |_, _, _, _| Err(wasmtime::Error::msg(what.clone())))
        }
        ComponentItem::Resource(_) => linker.resource(item, ResourceType::host::<()>(), |_, _| Ok(())),
        _ => Ok(()),
    }
}
