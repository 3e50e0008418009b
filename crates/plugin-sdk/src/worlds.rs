//! What wit-bindgen generates: the imports once, the exports of each world around them.
#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "generated from the WIT package, documented there"
)]

/// What every world imports.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit/0.1.1",
        inline: "
            package husk:sdk;
            world imports {
                import husk:plugin/pod@0.1.1;
                import husk:plugin/container@0.1.1;
                import husk:plugin/process@0.1.1;
                import husk:plugin/exit@0.1.1;
                import husk:plugin/update@0.1.1;
                import husk:plugin/edit@0.1.1;
                import husk:plugin/host@0.1.1;
            }
        ",
        world: "husk:sdk/imports",
        generate_all,
        additional_derives: [PartialEq, Eq],
    });
}

/// The bindings of one exported interface, as a world of its own: a plugin that exports several has
/// the union of their worlds.
macro_rules! export {
    ($interface:ident, $inline:literal $(, $types:literal)?) => {
        /// What a plugin exports.
        pub mod $interface {
            wit_bindgen::generate!({
                path: "../../wit/0.1.1",
                inline: $inline,
                pub_export_macro: true,
                additional_derives: [PartialEq, Eq],
                $(with: { $types: crate::worlds::imports::husk::plugin::types },)?
            });
        }
    };
}

export!(
    scoping,
    "package husk:sdk-scoping; world scoping { export husk:plugin/scoping@0.1.1; }",
    "husk:plugin/types@0.1.1"
);
export!(
    linking,
    "package husk:sdk-linking; world linking { export husk:plugin/linking@0.1.1; }",
    "husk:plugin/types@0.1.1"
);
export!(
    lifecycle,
    "package husk:sdk-lifecycle; world lifecycle { export husk:plugin/lifecycle@0.1.1; }",
    "husk:plugin/types@0.1.1"
);
export!(
    configurable,
    "package husk:sdk-configurable; world configurable { export husk:plugin/configurable@0.1.1; }"
);

impl<T: crate::Policy> scoping::exports::husk::plugin::scoping::Guest for T {
    fn scope_sandbox() -> crate::Answer {
        crate::tell_of_panics();
        T::scope_sandbox()
    }

    fn scope_container() -> crate::Answer {
        crate::tell_of_panics();
        T::scope_container()
    }
}

impl<T: crate::Links> linking::exports::husk::plugin::linking::Guest for T {
    fn link_container() -> crate::Linked {
        crate::tell_of_panics();
        T::link_container()
    }
}

impl<T: crate::Hooks> lifecycle::exports::husk::plugin::lifecycle::Guest for T {
    fn sandbox_starting() -> crate::Verdict {
        crate::tell_of_panics();
        T::sandbox_starting()
    }

    fn sandbox_started() {
        crate::tell_of_panics();
        T::sandbox_started();
    }

    fn sandbox_stopped() {
        crate::tell_of_panics();
        T::sandbox_stopped();
    }

    fn container_creating() -> crate::Verdict {
        crate::tell_of_panics();
        T::container_creating()
    }

    fn container_started() {
        crate::tell_of_panics();
        T::container_started();
    }

    fn container_exited() {
        crate::tell_of_panics();
        T::container_exited();
    }

    fn container_oom() {
        crate::tell_of_panics();
        T::container_oom();
    }

    fn exec_starting() -> crate::Verdict {
        crate::tell_of_panics();
        T::exec_starting()
    }

    fn resources_updating() -> crate::Verdict {
        crate::tell_of_panics();
        T::resources_updating()
    }
}

impl<T: crate::Configurable> configurable::exports::husk::plugin::configurable::Guest for T {
    fn validate_settings(settings: String) -> Result<(), String> {
        crate::tell_of_panics();
        T::validate_settings(settings)
    }
}
