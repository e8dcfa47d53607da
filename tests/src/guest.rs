//! Plug-ins that misbehave on one record, written by hand.

use anyhow::{Context as _, Result};

/// What the guest does with its poison record.
#[derive(Clone, Copy, Debug)]
pub enum Poison {
    /// Answers `fail` with the message `not this one`.
    Fail,
    /// Never returns.
    Loop,
    /// Hits `unreachable`.
    Trap,
}

impl Poison {
    fn code(self) -> &'static str {
        match self {
            // Outcome 5, then the error's code and message as pointers and lengths.
            Poison::Fail => {
                "(i32.store8 (local.get $o) (i32.const 5))
                 (i32.store offset=4 (local.get $o) (i32.const 512)) (i32.store offset=8 (local.get $o) (i32.const 3))
                 (i32.store offset=12 (local.get $o) (i32.const 512)) (i32.store offset=16 (local.get $o) (i32.const 12))"
            }
            Poison::Loop => "(loop $ever (br $ever))",
            Poison::Trap => "(unreachable)",
        }
    }
}

/// A core module for `aqueduct:transform@0.1.0` that keeps every record, except that whose value begins with
/// `{"id":<id>,` and an id of four digits.
pub fn module(poison: Poison, id: u16) -> Result<Vec<u8>> {
    let digits = u32::from_le_bytes(format!("{id:04}").as_bytes().try_into().context("four digits")?);
    let code = poison.code();
    let text = format!(
        r#"(module
  (memory (export "memory") 4)
  (data (i32.const 512) "not this one")
  (global $top (mut i32) (i32.const 1024))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32) (param $n i32) (result i32)
    (local $p i32)
    (local.set $p (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $p) (local.get $n)))
    (block $ok (loop $more
      (br_if $ok (i32.le_u (global.get $top) (i32.shl (memory.size) (i32.const 16))))
      (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
      (unreachable)))
    (local.get $p))
  ;; All zero: ok, no name, no needs, the whole value.
  (func (export "aqueduct:transform/transformer@0.1.0#configure") (param i32 i32) (result i32) (i32.const 64))
  (func (export "aqueduct:transform/transformer@0.1.0#transform")
    (param i32 i32 i32 i32) (param $list i32) (param $n i32) (result i32)
    (local $out i32) (local $i i32) (local $rec i32) (local $ptr i32) (local $o i32)
    (local.set $out (call $realloc (i32.const 0) (i32.const 0) (i32.const 8)
      (i32.mul (i32.add (local.get $n) (i32.const 1)) (i32.const 20))))
    (block $end (loop $next
      (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
      (local.set $rec (i32.add (local.get $list) (i32.mul (local.get $i) (i32.const 56))))
      (local.set $ptr (i32.load offset=4 (local.get $rec)))
      (local.set $o (i32.add (local.get $out) (i32.mul (local.get $i) (i32.const 20))))
      (i32.store8 (local.get $o) (i32.const 0))
      (if (i32.and (i32.gt_u (i32.load offset=8 (local.get $rec)) (i32.const 10))
                   (i32.and (i32.eq (i32.load offset=6 (local.get $ptr)) (i32.const {digits}))
                            (i32.eq (i32.load8_u offset=10 (local.get $ptr)) (i32.const 44))))
        (then {code}))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (local.get $out))
    (i32.store (i32.const 24) (local.get $n))
    (i32.const 16))
  (func (export "cabi_post_aqueduct:transform/transformer@0.1.0#transform") (param i32)
    (global.set $top (i32.const 1024))))"#
    );
    let mut module = wat::parse_str(text)?;
    let mut resolve = wit_parser::Resolve::default();
    let wit = include_str!("../../plugins/wit/transform.wit");
    let package = resolve.push_str("transform.wit", wit)?;
    let world = resolve.select_world(&[package], Some("transform-plugin"))?;
    let utf8 = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, utf8)?;
    Ok(module)
}
