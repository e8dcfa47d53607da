//! WASM transforms: [`WasmFactory`] runs a guest written against `plugins/wit/transform.wit` as a step.
//!
//! * [`mod@engine`]: one wasmtime engine per process and the clock that enforces deadlines.
//! * [`mod@module`]: bytes to compiled component, with a cache on disk.
//! * [`mod@guest`]: one instance, its limits and its log.
//! * [`mod@project`]: values of records to what the guest sees, and back.
//! * [`mod@step`]: batches, and the three levels of error.
//!
//! **Invariant:** a guest reaches nothing but the records of its step. It has no network, file, clock or randomness; its
//! memory, its time and what it makes the host allocate are bounded.

mod bindings;
mod code_cache;
mod engine;
mod factory;
mod guest;
mod guest_log;
mod module;
mod project;
mod step;

pub use factory::WasmFactory;
