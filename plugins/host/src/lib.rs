//! WASM transforms: the wasmtime host
