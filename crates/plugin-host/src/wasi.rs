//! Inert answers for whatever else a component imports, such as WASI.
//!
//! Compilers of some languages leave imports of `wasi:*` in every component. They are granted
//! nothing: a function they import answers with the empty value of its type (no files, no
//! arguments, time zero, zeroes for randomness), the same at every call, so that a decision stays a
//! function of what the plugin asks. Where a type has no empty value, such as a handle, the call
//! traps.
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType, Val};
use wasmtime::{Result, bail};

use crate::state::State;

/// The package that is answered for real.
const OURS: &str = "husk:plugin/";

/// Defines every import of `component` outside `husk:plugin` as inert.
pub(crate) fn define(linker: &mut Linker<State>, component: &Component) -> Result<()> {
    let engine = linker.engine().clone();
    for (name, import) in component.component_type().imports(&engine) {
        if name.starts_with(OURS) {
            continue;
        }
        match import.ty {
            ComponentItem::ComponentInstance(instance) => {
                let mut inert = linker.instance(name)?;
                for (item_name, item) in instance.exports(&engine) {
                    define_item(&mut inert, item_name, item.ty)?;
                }
            }
            item => define_item(&mut linker.root(), name, item)?,
        }
    }
    Ok(())
}

fn define_item(
    linker: &mut LinkerInstance<'_, State>,
    name: &str,
    item: ComponentItem,
) -> Result<()> {
    match item {
        ComponentItem::ComponentFunc(function) => define_function(linker, name, &function),
        ComponentItem::Resource(_) => {
            linker.resource(name, ResourceType::host::<Inert>(), |_, _| Ok(()))
        }
        // Types stand for themselves.
        ComponentItem::Type(_) => Ok(()),
        _ => bail!("it imports `{name}`, which is neither a function nor a type"),
    }
}

fn define_function(
    linker: &mut LinkerInstance<'_, State>,
    name: &str,
    function: &ComponentFunc,
) -> Result<()> {
    let empty: Option<Vec<Val>> = function
        .results()
        .map(|result| empty_value(&result))
        .collect();
    let full_name = name.to_owned();
    linker.func_new(name, move |_, _, _, results| {
        let Some(empty) = &empty else {
            bail!("`{full_name}` is not granted: a plugin has no files, no network, no clock");
        };
        results.clone_from_slice(empty);
        Ok(())
    })
}

/// What stands for a resource that is never handed out.
struct Inert;

/// The empty value of a type; none where there is no such thing.
fn empty_value(ty: &Type) -> Option<Val> {
    Some(match ty {
        Type::Bool => Val::Bool(false),
        Type::S8 => Val::S8(0),
        Type::U8 => Val::U8(0),
        Type::S16 => Val::S16(0),
        Type::U16 => Val::U16(0),
        Type::S32 => Val::S32(0),
        Type::U32 => Val::U32(0),
        Type::S64 => Val::S64(0),
        Type::U64 => Val::U64(0),
        Type::Float32 => Val::Float32(0.0),
        Type::Float64 => Val::Float64(0.0),
        Type::Char => Val::Char('\0'),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Flags(_) => Val::Flags(Vec::new()),
        Type::Enum(names) => Val::Enum(names.names().next()?.to_owned()),
        Type::Tuple(tuple) => Val::Tuple(
            tuple
                .types()
                .map(|ty| empty_value(&ty))
                .collect::<Option<_>>()?,
        ),
        Type::Record(record) => Val::Record(
            record
                .fields()
                .map(|field| Some((field.name.to_owned(), empty_value(&field.ty)?)))
                .collect::<Option<_>>()?,
        ),
        Type::Result(result) => Val::Result(Ok(match result.ok() {
            Some(ty) => Some(Box::new(empty_value(&ty)?)),
            None => None,
        })),
        _ => return None,
    })
}
