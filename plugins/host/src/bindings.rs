//! The host's side of `plugins/wit/transform.wit`. Arguments borrow from the records.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "transform-plugin",
    ownership: Borrowing { duplicate_if_necessary: false },
});
