//! Inert answers for whatever else a component imports, such as WASI.
//!
//! Compilers of some languages leave imports of `wasi:*` in every component. They are granted
//! nothing: a function they import answers with the empty value of its type (no files, no
//! arguments, time zero, writes that go nowhere, zeroes for randomness), the same at every call, so
//! that a decision stays a function of what the plugin asks. A handle is one of something that does
//! nothing. Where a type has no empty value, such as a variant, the call traps.
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{
    Component, Linker, LinkerInstance, Resource, ResourceAny, ResourceType, Val,
};
use wasmtime::{Result, StoreContextMut, bail};

use crate::guest_log::Tail;
use crate::limits::{CROSSING, OverLimit};
use crate::state::State;

/// The package that is answered for real.
const OURS: &str = "husk:plugin/";

/// The functions of `wasi:random` that must return as many bytes as they are asked for.
const RANDOM: [&str; 2] = ["get-random-bytes", "get-insecure-random-bytes"];

/// The functions of `wasi:io` that write what they are given. It goes nowhere, but for its end, which
/// tells why a call failed.
const WRITES: [&str; 2] = [
    "[method]output-stream.write",
    "[method]output-stream.blocking-write-and-flush",
];

/// The most zeroes that one call gets for randomness; seeds are shorter.
const RANDOM_BYTES: u64 = 64 * 1024;

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
    let types: Vec<Type> = function.results().collect();
    let full_name = name.to_owned();
    linker.func_new(name, move |mut store, _, arguments, results| {
        if WRITES.contains(&full_name.as_str()) {
            for argument in arguments {
                keep(&mut store.data_mut().output, argument);
            }
        }
        for argument in arguments {
            release(&mut store, argument)?;
        }
        if let ([Val::U64(length)], [result]) = (arguments, &mut *results)
            && RANDOM.contains(&full_name.as_str())
        {
            *result = zeroes(*length)?;
            return Ok(());
        }
        let mut room = Room(CROSSING);
        for (result, ty) in results.iter_mut().zip(&types) {
            let Some(empty) = empty_value(&mut store, ty, &mut room)? else {
                bail!("`{full_name}` is not granted: a plugin has no files, no network, no clock");
            };
            *result = empty;
        }
        Ok(())
    })
}

/// What every handle stands for.
struct Inert;

/// Remembers the end of what is written.
fn keep(output: &mut Tail, argument: &Val) {
    let Val::List(bytes) = argument else { return };
    for byte in bytes {
        if let Val::U8(byte) = byte {
            output.push(*byte);
        }
    }
}

/// Gives back the handles in an argument: a plugin may not return while one is lent out.
fn release(store: &mut StoreContextMut<'_, State>, argument: &Val) -> Result<()> {
    match argument {
        Val::Resource(handle) => handle.resource_drop(store),
        Val::Option(Some(value)) => release(store, value),
        Val::List(values) | Val::Tuple(values) => {
            values.iter().try_for_each(|value| release(store, value))
        }
        _ => Ok(()),
    }
}

/// What the empty values of one call may still take, in bytes. A type of a few words, each twice the
/// one before, has an empty value of gigabytes.
struct Room(usize);

impl Room {
    fn take(&mut self, name: &str) -> Result<()> {
        let bytes = size_of::<Val>().saturating_add(name.len());
        self.0 = self.0.checked_sub(bytes).ok_or_else(OverLimit::crossing)?;
        Ok(())
    }
}

/// Chance that is always the same.
fn zeroes(length: u64) -> Result<Val> {
    if length > RANDOM_BYTES {
        bail!("{length} bytes of randomness at once: {RANDOM_BYTES} are allowed");
    }
    Ok(Val::List((0..length).map(|_| Val::U8(0)).collect()))
}

/// The empty value of a type; none where there is no such thing.
fn empty_value(
    store: &mut StoreContextMut<'_, State>,
    ty: &Type,
    room: &mut Room,
) -> Result<Option<Val>> {
    room.take("")?;
    Ok(Some(match ty {
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
        Type::Enum(names) => match names.names().next() {
            Some(name) => {
                room.take(name)?;
                Val::Enum(name.to_owned())
            }
            None => return Ok(None),
        },
        Type::Own(_) => {
            let handle = Resource::<Inert>::new_own(0);
            Val::Resource(ResourceAny::try_from_resource(handle, store)?)
        }
        Type::Tuple(tuple) => {
            let mut values = Vec::new();
            for ty in tuple.types() {
                let Some(value) = empty_value(store, &ty, room)? else {
                    return Ok(None);
                };
                values.push(value);
            }
            Val::Tuple(values)
        }
        Type::Record(record) => {
            let mut fields = Vec::new();
            for field in record.fields() {
                room.take(field.name)?;
                let Some(value) = empty_value(store, &field.ty, room)? else {
                    return Ok(None);
                };
                fields.push((field.name.to_owned(), value));
            }
            Val::Record(fields)
        }
        Type::Result(result) => Val::Result(Ok(match result.ok() {
            Some(ty) => match empty_value(store, &ty, room)? {
                Some(value) => Some(Box::new(value)),
                None => return Ok(None),
            },
            None => None,
        })),
        _ => return Ok(None),
    }))
}
