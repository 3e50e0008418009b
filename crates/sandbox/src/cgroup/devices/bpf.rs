//! Device rules as a BPF program; see bpf(2) and `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The kernel runs the program at each mknod(2) and open(2) of a device, with what is asked:
//! the kind of the device and the access, its major and its minor number. It answers 1 for yes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{ALL, Kind, Rule};

/// One instruction, in the layout of `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// What to do.
    code: u8,
    /// The registers: destination in the low four bits, source in the high four.
    registers: u8,
    /// How far to jump, or where to load from.
    offset: i16,
    /// A constant.
    immediate: i32,
}

// Operations, from linux/bpf_common.h and linux/bpf.h: class, operation and operand in one byte.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const COPY: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const IF_NOT: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const IF: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_NOT_WIDE: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// Registers. The context, struct bpf_cgroup_dev_ctx, comes in r1; the answer goes out in r0.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Kinds of devices, from linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

/// The program for these rules; `None` if they allow everything.
///
/// The rules are gone through from the last to the first. WANTED holds the accesses that no rule
/// has decided yet: a rule that allows some clears them, one that denies any of them ends it.
pub(super) fn program(rules: &[Rule]) -> Option<Vec<Instruction>> {
    // What stands before a rule for everything never decides.
    let start = rules
        .iter()
        .rposition(|rule| rule.kind.is_none())
        .unwrap_or_default();
    let rules = rules.get(start..).unwrap_or_default();
    if rules.iter().all(|rule| rule.allow) && rules.iter().any(|rule| rule.kind.is_none()) {
        return None;
    }
    let mut program = vec![
        instruction(LOAD_WORD, WANTED, CONTEXT, 0, 0),
        instruction(COPY, KIND, WANTED, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, WANTED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    rules
        .iter()
        .rev()
        .for_each(|rule| program.extend(translate(rule)));
    // What no rule has decided is refused.
    program.extend(answer(0));
    Some(program)
}

fn answer(value: i32) -> [Instruction; 2] {
    [
        instruction(MOVE, ANSWER, 0, 0, value),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

fn translate(rule: &Rule) -> Vec<Instruction> {
    let access = rule.access.cast_signed();
    let mut decision = Vec::new();
    if rule.allow {
        decision.push(instruction(
            AND,
            WANTED,
            0,
            0,
            (ALL & !rule.access).cast_signed(),
        ));
        // Still something wanted: on to the rules before.
        decision.push(instruction(IF_NOT, WANTED, 0, 2, 0));
        decision.extend(answer(1));
    } else {
        decision.push(instruction(COPY, SCRATCH, WANTED, 0, 0));
        decision.push(instruction(AND, SCRATCH, 0, 0, access));
        decision.push(instruction(IF, SCRATCH, 0, 2, 0));
        decision.extend(answer(0));
    }
    let kind = rule.kind.map(|kind| match kind {
        Kind::Block => BLOCK,
        Kind::Character => CHARACTER,
    });
    let numbers = [
        (IF_NOT, KIND, kind),
        // Numbers have 32 bits, and a comparison in 64 would extend their sign.
        (IF_NOT_WIDE, MAJOR, rule.major.map(u32::cast_signed)),
        (IF_NOT_WIDE, MINOR, rule.minor.map(u32::cast_signed)),
    ];
    let conditions: Vec<_> = numbers
        .into_iter()
        .filter_map(|(code, register, value)| Some((code, register, value?)))
        .collect();
    let mut block = Vec::with_capacity(conditions.len() + decision.len());
    for (position, (code, register, value)) in conditions.iter().enumerate() {
        // Past the other conditions and the decision; both are a handful.
        let past = conditions.len() - position - 1 + decision.len();
        block.push(instruction(
            *code,
            *register,
            0,
            i16::try_from(past).unwrap_or(i16::MAX),
            *value,
        ));
    }
    block.extend(decision);
    block
}

// Commands and constants of bpf(2), from linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the cgroups above, and systemd's, run too: all of them must agree.
const ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; what follows is zero for the kernel.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// Loads a program into the kernel.
pub(super) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name.iter_mut()
        .zip(b"husk_devices")
        .for_each(|(to, from)| *to = *from);
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
        program: program.as_ptr() as u64,
        // No function of the kernel is called that would ask for another.
        license: c"Apache-2.0".as_ptr() as u64,
        name,
        ..Load::default()
    };
    // SAFETY: the attributes have the layout of `union bpf_attr` for this command, their length is
    // given, and what they point to outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of::<Load>(),
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us (with O_CLOEXEC, as always for BPF).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup, which holds it until the cgroup is removed.
pub(super) fn attach(program: &OwnedFd, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        ..Attach::default()
    };
    // SAFETY: the attributes have the layout of `union bpf_attr` for this command, and their
    // length is given; both descriptors are open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            &raw const attributes,
            size_of::<Attach>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{EVERYONE, MAKE, READ, WRITE};
    use super::*;

    /// What is asked of a program.
    #[derive(Clone, Copy, Debug)]
    struct Request {
        kind: Kind,
        major: u32,
        minor: u32,
        access: u32,
    }

    /// The meaning of the rules: for each kind of access the last rule that matches decides.
    fn allowed(rules: &[Rule], request: Request) -> bool {
        [MAKE, READ, WRITE]
            .iter()
            .filter(|bit| request.access & *bit != 0)
            .all(|bit| {
                let decides = |rule: &&Rule| {
                    rule.access & bit != 0
                        && rule.kind.is_none_or(|kind| kind == request.kind)
                        && rule.major.is_none_or(|major| major == request.major)
                        && rule.minor.is_none_or(|minor| minor == request.minor)
                };
                rules
                    .iter()
                    .rev()
                    .find(decides)
                    .is_some_and(|rule| rule.allow)
            })
    }

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], request: Request) -> bool {
        let kind = match request.kind {
            Kind::Block => 1,
            Kind::Character => 2,
        };
        let context = [request.access << 16 | kind, request.major, request.minor];
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let it = program[at];
            let (to, from) = (
                usize::from(it.registers & 15),
                usize::from(it.registers >> 4),
            );
            let constant = i64::from(it.immediate).cast_unsigned();
            let narrow = |value: u64| value & 0xffff_ffff;
            let jump = match it.code {
                LOAD_WORD => {
                    registers[to] = context[usize::try_from(it.offset).unwrap() / 4].into();
                    false
                }
                MOVE => {
                    registers[to] = constant;
                    false
                }
                COPY => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= constant;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= constant;
                    false
                }
                IF => registers[to] == constant,
                IF_NOT => registers[to] != constant,
                IF_NOT_WIDE => narrow(registers[to]) != narrow(constant),
                EXIT => return registers[0] == 1,
                code => panic!("unknown operation {code:#x}"),
            };
            at += 1 + if jump {
                usize::try_from(it.offset).unwrap()
            } else {
                0
            };
        }
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Block), Just(Kind::Character)]
    }

    /// Few numbers, so that rules and requests meet; and those whose sign bit is set.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..3, Just(0x8000_0000), Just(u32::MAX)]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let some = (
            any::<bool>(),
            kind(),
            proptest::option::of(number()),
            proptest::option::of(number()),
            1u32..8,
        )
            .prop_map(|(allow, kind, major, minor, access)| Rule {
                allow,
                kind: Some(kind),
                major,
                minor,
                access,
            });
        let all = any::<bool>().prop_map(|allow| Rule {
            allow,
            kind: None,
            major: None,
            minor: None,
            access: ALL,
        });
        prop_oneof![6 => some, 1 => all]
    }

    fn request() -> impl Strategy<Value = Request> {
        (kind(), number(), number(), 1u32..8).prop_map(|(kind, major, minor, access)| Request {
            kind,
            major,
            minor,
            access,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn a_program_decides_as_its_rules(
            rules in proptest::collection::vec(rule(), 0..8),
            request in request(),
        ) {
            let decision = match program(&rules) {
                Some(program) => run(&program, request),
                None => true,
            };
            prop_assert_eq!(decision, allowed(&rules, request));
        }
    }

    #[test]
    fn without_rules_a_container_has_the_default_devices() {
        let program = program(&EVERYONE).unwrap();
        let ask = |major, minor, access| {
            run(
                &program,
                Request {
                    kind: Kind::Character,
                    major,
                    minor,
                    access,
                },
            )
        };
        assert!(ask(1, 3, READ | WRITE));
        assert!(ask(136, 77, READ | WRITE));
        assert!(ask(10, 200, MAKE));
        assert!(!ask(10, 200, MAKE | READ));
        assert!(!ask(1, 1, READ));
    }

    #[test]
    fn rules_that_allow_all_need_no_program() {
        let all = Rule {
            allow: true,
            kind: None,
            major: None,
            minor: None,
            access: ALL,
        };
        let mut rules = vec![
            Rule {
                allow: false,
                ..all
            },
            all,
        ];
        rules.extend(EVERYONE);
        assert_eq!(program(&rules), None);
        rules.push(Rule {
            allow: false,
            ..all
        });
        assert!(program(&rules).is_some());
    }

    #[test]
    fn an_instruction_has_the_size_the_kernel_wants() {
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
