//! What [`export_transform!`](crate::export_transform) expands to, kept out of the user's sight.

use crate::bindings::aqueduct::transform::types as wire;
use crate::{Error, Level, Outcome, Transform, log};

pub use crate::bindings::aqueduct::transform::types::{
    Context, InRecord, Outcome as WireOutcome, PluginError, PluginInfo,
};

/// Makes a transform from the step's config, and what the host wants to know of it.
pub fn configure<T: Transform>(
    config: &str,
    name: &str,
    version: &str,
) -> Result<(T, PluginInfo), PluginError> {
    // On this target a panic's message would be lost otherwise.
    std::panic::set_hook(Box::new(|info| log(Level::Error, &format!("the plugin panicked: {info}"))));
    let fail = |message: String| PluginError { message, retriable: false };
    let config = serde_json::from_str(config).map_err(|error| fail(format!("`config` is wrong: {error}")))?;
    let transform = T::configure(config).map_err(fail)?;
    let needs = transform.needs();
    let input = needs.fields.map_or(wire::Input::Value, wire::Input::Fields);
    let info = PluginInfo { name: name.into(), version: version.into(), needs: needs.flags, input };
    Ok((transform, info))
}

/// Runs a batch through it.
pub fn batch<T: Transform>(
    transform: Option<&mut T>,
    context: &Context,
    batch: Vec<InRecord>,
) -> Result<Vec<WireOutcome>, PluginError> {
    let Some(transform) = transform else {
        return Err(PluginError {
            message: "`transform` was called before `configure`".into(),
            retriable: false,
        });
    };
    match transform.batch(context, batch) {
        Ok(results) => Ok(results.into_iter().map(outcome).collect()),
        Err(error) => Err(PluginError { message: error.message, retriable: error.retriable }),
    }
}

fn outcome(result: Result<Outcome, Error>) -> WireOutcome {
    match result {
        Ok(Outcome::Keep) => WireOutcome::Keep,
        Ok(Outcome::Drop) => WireOutcome::Drop,
        Ok(Outcome::SetValue(json)) => WireOutcome::SetValue(json),
        Ok(Outcome::SetFields(fields)) => WireOutcome::SetFields(fields),
        Ok(Outcome::Emit(records)) => WireOutcome::Emit(records),
        Err(error) => WireOutcome::Fail(wire::RecordError { code: error.code, message: error.message }),
    }
}

/// Makes a type that implements [`Transform`](crate::Transform) the module's transform.
#[macro_export]
macro_rules! export_transform {
    ($transform:ty) => {
        mod aqueduct_export {
            ::std::thread_local!(static TRANSFORM: ::std::cell::RefCell<::std::option::Option<super::Exported>> =
                const { ::std::cell::RefCell::new(::std::option::Option::None) });

            pub struct Component;

            impl $crate::bindings::exports::aqueduct::transform::transformer::Guest for Component {
                fn configure(
                    config: ::std::string::String,
                ) -> ::std::result::Result<$crate::export::PluginInfo, $crate::export::PluginError> {
                    let name = ::std::env!("CARGO_PKG_NAME");
                    let (made, info) = $crate::export::configure(&config, name, ::std::env!("CARGO_PKG_VERSION"))?;
                    TRANSFORM.with(|transform| *transform.borrow_mut() = ::std::option::Option::Some(made));
                    ::std::result::Result::Ok(info)
                }

                fn transform(
                    context: $crate::export::Context,
                    batch: ::std::vec::Vec<$crate::export::InRecord>,
                ) -> ::std::result::Result<
                    ::std::vec::Vec<$crate::export::WireOutcome>,
                    $crate::export::PluginError,
                > {
                    TRANSFORM.with(|transform| {
                        $crate::export::batch(transform.borrow_mut().as_mut(), &context, batch)
                    })
                }
            }

            $crate::bindings::export_raw!(Component with_types_in $crate::bindings);
        }

        #[doc(hidden)]
        type Exported = $transform;
    };
}
