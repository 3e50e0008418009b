//! What a component may be made of, looked at before it is compiled.
//!
//! What a component makes the host hold only by being there is not asked for at run time: what
//! wasmtime records of it when it is loaded, and of each instance when it is called. Both are bounded
//! here, by counting. A component that was not counted is never run: machine code comes from
//! [`crate::artifact::compile`] only.
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Parser, Payload, Validator, WasmFeatures,
};

use crate::limits::Size;

/// What modules may use of WebAssembly. See [`crate::engine::config`], which says of each why it
/// stays. The engine must have one thing more, several memories in one module: the code by which one
/// component inside another calls its neighbour reads one memory and writes the other.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::BULK_MEMORY_OPT)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::COMPONENT_MODEL);

/// How many functions, globals, imports, types and the like a component may have: Python's, by far
/// the largest that is known, has some 40,000.
const ITEMS: u64 = 150_000;

/// The most that the records of all instances may come to, in bytes; Python's come to 2 MB.
const INSTANCES: u64 = 8 << 20;

/// The most that wasmtime keeps in an instance for one item of its module, in bytes: an imported
/// function takes 32, a global 16.
const ITEM: u64 = 32;

/// What an instance takes beside its items, in bytes.
const INSTANCE: u64 = 1024;

/// What is known of the index spaces of a component that is being read.
#[derive(Default)]
struct Scope {
    /// What an instance of each module takes, in bytes; none where the module comes from outside.
    modules: Vec<Option<u64>>,
    /// The same of each component, with all instances in it.
    components: Vec<Option<u64>>,
    /// What the instances so far take.
    instances: u64,
}

/// A module or a component that is being read.
enum Open {
    Module { items: u64 },
    Component(Scope),
}

/// Counts as it reads.
#[derive(Default)]
struct Count {
    open: Vec<Open>,
    items: u64,
    /// What an instance of the whole takes.
    total: u64,
}

/// Says what is wrong with a component, if anything is.
///
/// # Errors
/// It is none, uses what plugins may not use, or would make the host hold too much.
pub(crate) fn admit(component: &[u8]) -> Result<(), String> {
    if Parser::is_core_wasm(component) {
        return Err("it is a core module: make a component of it with `husk policy build`".into());
    }
    Validator::new_with_features(FEATURES)
        .validate_all(component)
        .map_err(|error| error.to_string())?;
    let mut count = Count::default();
    for payload in Parser::new(0).parse_all(component) {
        count
            .payload(payload.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())??;
    }
    if count.items > ITEMS {
        return Err(format!(
            "it has {} functions, types, imports and the like: {ITEMS} are allowed",
            count.items
        ));
    }
    if count.total > INSTANCES {
        let bytes = |bytes| Size(usize::try_from(bytes).unwrap_or(usize::MAX));
        return Err(format!(
            "its instances would take {} beside their memories: {} are allowed",
            bytes(count.total),
            bytes(INSTANCES)
        ));
    }
    Ok(())
}

impl Count {
    /// The inner error is ours, the outer one the parser's.
    fn payload(&mut self, payload: Payload<'_>) -> wasmparser::Result<Result<(), String>> {
        match payload {
            Payload::Version { encoding, .. } => self.open.push(match encoding {
                Encoding::Module => Open::Module { items: 0 },
                Encoding::Component => Open::Component(Scope::default()),
            }),
            Payload::End(_) => self.close(),
            Payload::TypeSection(section) => self.add(section.count()),
            Payload::ImportSection(section) => {
                let mut imports = 0_u32;
                for import in section.into_imports() {
                    import?;
                    imports = imports.saturating_add(1);
                }
                self.add(imports);
            }
            Payload::FunctionSection(section) => self.add(section.count()),
            Payload::TableSection(section) => self.add(section.count()),
            Payload::MemorySection(section) => self.add(section.count()),
            Payload::TagSection(section) => self.add(section.count()),
            Payload::GlobalSection(section) => self.add(section.count()),
            Payload::ExportSection(section) => self.add(section.count()),
            Payload::ElementSection(section) => self.add(section.count()),
            Payload::DataSection(section) => self.add(section.count()),
            Payload::CoreTypeSection(section) => self.add(section.count()),
            Payload::ComponentTypeSection(section) => self.add(section.count()),
            Payload::ComponentCanonicalSection(section) => self.add(section.count()),
            Payload::InstanceSection(section) => {
                self.add(section.count());
                for instance in section {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        let found = self.scope().and_then(|scope| {
                            scope.modules.get(module_index as usize).copied().flatten()
                        });
                        if let Err(problem) = self.instantiate(found) {
                            return Ok(Err(problem));
                        }
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                self.add(section.count());
                for instance in section {
                    if let ComponentInstance::Instantiate {
                        component_index, ..
                    } = instance?
                    {
                        let found = self.scope().and_then(|scope| {
                            let components = &scope.components;
                            components.get(component_index as usize).copied().flatten()
                        });
                        if let Err(problem) = self.instantiate(found) {
                            return Ok(Err(problem));
                        }
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                self.add(section.count());
                for import in section {
                    match import?.ty {
                        ComponentTypeRef::Module(_) => self.module(None),
                        ComponentTypeRef::Component(_) => self.component(None),
                        _ => {}
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                self.add(section.count());
                for export in section {
                    let export = export?;
                    self.again(export.kind, 0, export.index);
                }
            }
            Payload::ComponentAliasSection(section) => {
                self.add(section.count());
                for alias in section {
                    match alias? {
                        ComponentAlias::InstanceExport { kind, .. } => match kind {
                            ComponentExternalKind::Module => self.module(None),
                            ComponentExternalKind::Component => self.component(None),
                            _ => {}
                        },
                        ComponentAlias::Outer { kind, count, index } => match kind {
                            ComponentOuterAliasKind::CoreModule => {
                                self.again(ComponentExternalKind::Module, count, index);
                            }
                            ComponentOuterAliasKind::Component => {
                                self.again(ComponentExternalKind::Component, count, index);
                            }
                            _ => {}
                        },
                        ComponentAlias::CoreInstanceExport { .. } => {}
                    }
                }
            }
            _ => {}
        }
        Ok(Ok(()))
    }

    fn add(&mut self, items: u32) {
        self.items = self.items.saturating_add(items.into());
        if let Some(Open::Module { items: own }) = self.open.last_mut() {
            *own = own.saturating_add(items.into());
        }
    }

    fn scope(&mut self) -> Option<&mut Scope> {
        match self.open.last_mut() {
            Some(Open::Component(scope)) => Some(scope),
            _ => None,
        }
    }

    fn module(&mut self, takes: Option<u64>) {
        if let Some(scope) = self.scope() {
            scope.modules.push(takes);
        }
    }

    fn component(&mut self, takes: Option<u64>) {
        if let Some(scope) = self.scope() {
            scope.components.push(takes);
        }
    }

    /// A name for a module or a component that is known already, `levels` further out.
    fn again(&mut self, kind: ComponentExternalKind, levels: u32, index: u32) {
        let outer = self.open.iter().rev().nth(levels as usize);
        let Some(Open::Component(outer)) = outer else {
            return;
        };
        match kind {
            ComponentExternalKind::Module => {
                let takes = outer.modules.get(index as usize).copied().flatten();
                self.module(takes);
            }
            ComponentExternalKind::Component => {
                let takes = outer.components.get(index as usize).copied().flatten();
                self.component(takes);
            }
            _ => {}
        }
    }

    fn instantiate(&mut self, takes: Option<u64>) -> Result<(), String> {
        let takes = takes.ok_or(
            "it instantiates a module or component that it does not bring along: a plugin is whole",
        )?;
        if let Some(scope) = self.scope() {
            scope.instances = scope.instances.saturating_add(takes);
        }
        Ok(())
    }

    /// What was open is read to its end.
    fn close(&mut self) {
        let takes = match self.open.pop() {
            Some(Open::Module { items }) => {
                let takes = items.saturating_mul(ITEM).saturating_add(INSTANCE);
                self.module(Some(takes));
                takes
            }
            Some(Open::Component(scope)) => {
                let takes = scope.instances.saturating_add(INSTANCE);
                self.component(Some(takes));
                takes
            }
            None => 0,
        };
        if self.open.is_empty() {
            self.total = takes;
        }
    }
}
