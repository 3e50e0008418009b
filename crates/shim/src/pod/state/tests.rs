//! The order rules of the contract, over random interleavings.
//!
//! A [`World`] stands for everything outside the state machine: it keeps the effects under way and
//! completes them in any order, with any outcome; processes end whenever it likes, also before the
//! shim has heard that they were made. After each step it checks the rules on what came out.
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::failure::FailureKind;

/// What the environment may do next. Indices pick among whatever is possible then.
#[derive(Clone, Debug)]
enum Move {
    Ask(Ask, Index, Index),
    /// Completes one of the effects under way; `true` succeeds.
    Complete(Index, bool),
    /// Ends a process that lives, heard of or not.
    End(Index),
    OutOfMemory(Index),
    HolderEnds,
    /// Nobody is left who knows the shim.
    Forsaken,
    /// A caller stops waiting for its answer.
    Leave(Index),
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Create,
    Exec,
    Start,
    StartExec,
    Delete,
    DeleteExec,
    Kill,
    KillAll,
    KillExec,
    Pause,
    Resume,
    Wait,
    WaitExec,
    State,
    Stats,
    Resize,
    Shutdown,
    CreateSandbox,
    StartSandbox,
    StopSandbox,
    WaitSandbox,
    SandboxStatus,
    ShutdownSandbox,
}

const IDS: [&str; 3] = ["a", "b", "c"];
const EXECS: [&str; 2] = ["x", "y"];

fn asks() -> impl Strategy<Value = Ask> {
    prop_oneof![
        8 => Just(Ask::Create),
        6 => Just(Ask::Exec),
        8 => Just(Ask::Start),
        6 => Just(Ask::StartExec),
        6 => Just(Ask::Delete),
        4 => Just(Ask::DeleteExec),
        4 => Just(Ask::Kill),
        2 => Just(Ask::KillAll),
        2 => Just(Ask::KillExec),
        3 => Just(Ask::Pause),
        3 => Just(Ask::Resume),
        3 => Just(Ask::Wait),
        3 => Just(Ask::WaitExec),
        1 => Just(Ask::State),
        1 => Just(Ask::Stats),
        1 => Just(Ask::Resize),
        1 => Just(Ask::Shutdown),
        2 => Just(Ask::CreateSandbox),
        2 => Just(Ask::StartSandbox),
        1 => Just(Ask::StopSandbox),
        1 => Just(Ask::WaitSandbox),
        1 => Just(Ask::SandboxStatus),
        1 => Just(Ask::ShutdownSandbox),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        10 => (asks(), any::<Index>(), any::<Index>()).prop_map(|(a, i, e)| Move::Ask(a, i, e)),
        8 => (any::<Index>(), prop::bool::weighted(0.85)).prop_map(|(i, ok)| Move::Complete(i, ok)),
        4 => any::<Index>().prop_map(Move::End),
        1 => any::<Index>().prop_map(Move::OutOfMemory),
        1 => Just(Move::HolderEnds),
        1 => Just(Move::Forsaken),
        1 => any::<Index>().prop_map(Move::Leave),
    ]
}

#[derive(Default)]
struct World {
    state: State,
    next: u64,
    /// Effects whose outcome is still to be told.
    pending: Vec<Effect>,
    /// Processes there are: made, or being made.
    alive: BTreeSet<ProcessId>,
    asked: BTreeSet<Token>,
    answered: BTreeSet<Token>,
    left: BTreeSet<Token>,
    /// What was published of each container, since it was last created.
    told: BTreeMap<String, Vec<Published>>,
    /// Whether anyone asked to kill this container, or its init ended.
    may_be_killed: BTreeSet<String>,
    stopping: bool,
    exited: bool,
}

impl World {
    fn ask(&mut self, ask: Ask, id: &Index, exec: &Index) {
        let id = *id.get(&IDS);
        let exec = *exec.get(&EXECS);
        let init = ProcessId::init(id);
        let further = ProcessId::exec(id, exec);
        let request = match ask {
            Ask::Create => Request::Create(id.into()),
            Ask::Exec => Request::Exec(id.into(), exec.into()),
            Ask::Start => Request::Start(init),
            Ask::StartExec => Request::Start(further),
            Ask::Delete => Request::Delete(init),
            Ask::DeleteExec => Request::Delete(further),
            Ask::Kill => kill(init, 15, false),
            Ask::KillAll => kill(init, 9, true),
            Ask::KillExec => kill(further, 9, false),
            Ask::Pause => Request::Pause(id.into()),
            Ask::Resume => Request::Resume(id.into()),
            Ask::Wait => Request::Wait(init),
            Ask::WaitExec => Request::Wait(further),
            Ask::State => Request::State(init),
            Ask::Stats => Request::Perform(init, Action::Stats),
            Ask::Resize => Request::Perform(
                init,
                Action::Resize {
                    width: 80,
                    height: 24,
                },
            ),
            Ask::Shutdown => Request::Shutdown,
            Ask::CreateSandbox => Request::CreateSandbox,
            Ask::StartSandbox => Request::StartSandbox,
            Ask::StopSandbox => Request::StopSandbox,
            Ask::WaitSandbox => Request::WaitSandbox,
            Ask::SandboxStatus => Request::SandboxStatus,
            Ask::ShutdownSandbox => Request::ShutdownSandbox,
        };
        self.request(request);
    }

    fn request(&mut self, request: Request) -> Token {
        self.next += 1;
        let token = Token(self.next);
        self.asked.insert(token);
        if matches!(request, Request::StopSandbox | Request::ShutdownSandbox) {
            self.stopping = true;
        }
        if let Request::Delete(process) = &request
            && self.is_being_made(process)
        {
            self.may_be_killed.insert(process.container.clone());
        }
        self.step(Event::Request(token, request));
        token
    }

    fn step(&mut self, event: Event) {
        let effects = self.state.step(event);
        for effect in effects {
            self.take(effect);
        }
    }

    fn take(&mut self, effect: Effect) {
        assert!(!self.exited, "{effect:?} after the shim's exit");
        match &effect {
            Effect::Reply(token, _) | Effect::Perform(token, ..) => self.answer(*token),
            Effect::Publish(event) => self.published(event),
            Effect::Save => {}
            Effect::Make(process) => self.makes(process),
            Effect::Signal { token, process, .. } => {
                if let Some(token) = token {
                    self.answer(*token);
                }
                assert!(self.made(process), "a signal to {process}, not made");
            }
            Effect::KillRest(id) => assert!(
                self.may_be_killed.contains(id) || self.stopping,
                "{id} was killed although it runs"
            ),
            Effect::Exit(tokens) => {
                tokens.iter().for_each(|token| self.answer(*token));
                assert_eq!(self.state.containers().count(), 0, "exit with containers");
                assert!(self.alive.is_empty(), "exit with processes");
                self.exited = true;
            }
            Effect::Start(_)
            | Effect::Freeze(_)
            | Effect::Thaw(_)
            | Effect::Clean(_)
            | Effect::MakeSandbox
            | Effect::UndoSandbox => {}
        }
        if is_outstanding(&effect) {
            assert!(!self.pending.contains(&effect), "{effect:?} twice at once");
            self.pending.push(effect);
        }
    }

    fn is_being_made(&self, process: &ProcessId) -> bool {
        let views = self.state.processes(&process.container);
        views
            .iter()
            .any(|(id, view)| id == process && view.status == Status::Creating)
    }

    /// What runs must not notice; everything else is to go.
    fn forsake(&mut self) {
        let before = format!("{:?}", self.state);
        let ids: Vec<_> = self.state.containers().map(str::to_owned).collect();
        let runs = |id: &String| {
            let life = self
                .state
                .processes(id)
                .first()
                .map(|(_, view)| view.status);
            self.told(id, |event| matches!(event, Published::Started { .. }))
                && !matches!(life, Some(Status::Stopped) | None)
        };
        if ids.iter().any(runs) {
            self.step(Event::Forsaken);
            assert_eq!(before, format!("{:?}", self.state));
            return;
        }
        self.stopping = true;
        self.may_be_killed.extend(ids);
        self.step(Event::Forsaken);
    }

    fn answer(&mut self, token: Token) {
        if token == NOBODY {
            return;
        }
        assert!(self.asked.contains(&token), "{token:?} was never asked");
        assert!(self.answered.insert(token), "{token:?} answered twice");
    }

    fn made(&self, process: &ProcessId) -> bool {
        let told = self
            .told
            .get(&process.container)
            .cloned()
            .unwrap_or_default();
        told.iter().any(|event| match event {
            Published::Created { .. } => process.exec.is_none(),
            Published::ExecStarted { process: p, .. } => p == process,
            _ => false,
        })
    }

    fn makes(&mut self, process: &ProcessId) {
        if process.exec.is_none() {
            self.told.insert(process.container.clone(), Vec::new());
            self.may_be_killed.remove(&process.container);
        } else {
            // Contract 28: no exec starts after init's exit.
            assert!(!self.told(&process.container, is_init_exit));
            assert!(self.told(&process.container, |e| matches!(
                e,
                Published::Started { .. }
            )));
        }
        self.alive.insert(process.clone());
    }

    fn told(&self, id: &str, is: impl Fn(&Published) -> bool) -> bool {
        self.told.get(id).is_some_and(|told| told.iter().any(is))
    }

    fn published(&mut self, event: &Published) {
        let id = container_of(event);
        let told = self.told.entry(id.to_owned()).or_default();
        assert!(
            !told.contains(event)
                || matches!(
                    event,
                    Published::Paused(_) | Published::Resumed(_) | Published::OutOfMemory(_)
                )
                || matches!(
                    event,
                    Published::ExecAdded(_) | Published::ExecStarted { .. }
                )
                || matches!(event, Published::Exited { process, .. } if process.exec.is_some()),
            "{event:?} twice"
        );
        let before = |is: &dyn Fn(&Published) -> bool| told.iter().any(is);
        match event {
            Published::Created { .. } => assert!(told.is_empty()),
            Published::Started { .. } => {
                assert!(before(&|e| matches!(e, Published::Created { .. })));
                assert!(!before(&is_init_exit), "Exit overtook Start");
            }
            Published::ExecAdded(_) => assert!(!before(&is_init_exit)),
            Published::ExecStarted { process, .. } => {
                assert!(before(&|e| *e == Published::ExecAdded(process.clone())));
                assert!(!before(&is_init_exit), "an exec after init's exit");
            }
            Published::Exited { process, .. } if process.exec.is_some() => {
                let starts = count(
                    told,
                    |e| matches!(e, Published::ExecStarted { process: p, .. } if p == process),
                );
                let exits = count(
                    told,
                    |e| matches!(e, Published::Exited { process: p, .. } if p == process),
                );
                assert_eq!(starts, exits + 1, "{process}: Exit without its Start");
                assert!(!before(&is_init_exit), "an exec's exit after init's");
            }
            Published::Exited { .. } => {
                assert!(before(&|e| matches!(e, Published::Created { .. })));
                let starts = count(told, |e| matches!(e, Published::ExecStarted { .. }));
                let exits = count(
                    told,
                    |e| matches!(e, Published::Exited { process, .. } if process.exec.is_some()),
                );
                assert_eq!(starts, exits, "init's exit before an exec's");
            }
            Published::Deleted { .. } => assert!(before(&is_init_exit)),
            Published::Paused(_) | Published::Resumed(_) => assert!(!before(&is_init_exit)),
            Published::OutOfMemory(_) => {}
        }
        self.told
            .entry(id.to_owned())
            .or_default()
            .push(event.clone());
    }

    fn complete(&mut self, index: &Index, ok: bool) {
        if self.pending.is_empty() {
            return;
        }
        let effect = self.pending.remove(index.index(self.pending.len()));
        let failure = Failure::internal("so the test wants");
        let result = if ok { Ok(()) } else { Err(failure.clone()) };
        match effect {
            Effect::Make(process) => {
                // A process whose end was seen already was made.
                let result = if ok || !self.alive.contains(&process) {
                    Ok(Made {
                        pid: 7,
                        shares_pids: process.container == "b",
                    })
                } else {
                    self.alive.remove(&process);
                    Err(failure)
                };
                self.step(Event::Made(process, result));
            }
            Effect::Start(id) => self.step(Event::Started(id, result)),
            Effect::Freeze(id) => self.step(Event::Frozen(id, result)),
            Effect::Thaw(id) => self.step(Event::Thawed(id, result)),
            Effect::Clean(process) => self.step(Event::Cleaned(process, result)),
            Effect::MakeSandbox => self.step(Event::SandboxMade(result.map(|()| 0))),
            Effect::UndoSandbox => self.step(Event::SandboxUndone(result, 5)),
            other => panic!("{other:?} has no outcome"),
        }
    }

    fn end(&mut self, process: &ProcessId) {
        self.alive.remove(process);
        if process.exec.is_none() {
            self.may_be_killed.insert(process.container.clone());
        }
        let exit = Exit { code: 3, at_ms: 9 };
        self.step(Event::Exited(process.clone(), exit));
    }

    fn play(&mut self, step: &Move) {
        match step {
            Move::Ask(ask, id, exec) => self.ask(*ask, id, exec),
            Move::Complete(index, ok) => self.complete(index, *ok),
            Move::End(index) if !self.alive.is_empty() => {
                let all: Vec<_> = self.alive.iter().cloned().collect();
                self.end(index.get(&all));
            }
            Move::End(_) => {}
            Move::OutOfMemory(id) => {
                let id = *id.get(&IDS);
                self.step(Event::OutOfMemory(id.to_owned()));
            }
            Move::Leave(index) => {
                let waiting: Vec<_> = self.asked.difference(&self.answered).copied().collect();
                if !waiting.is_empty() {
                    let token = *index.get(&waiting);
                    self.left.insert(token);
                    self.step(Event::Left(token));
                }
            }
            Move::Forsaken => self.forsake(),
            Move::HolderEnds => {
                self.stopping = true;
                self.step(Event::HolderExited(Exit {
                    code: 137,
                    at_ms: 4,
                }));
            }
        }
    }

    /// Lets everything under way succeed and every process end, and asks for all to be deleted.
    fn drain(&mut self) {
        for _ in 0..100 {
            while !self.pending.is_empty() {
                self.complete(&first(), true);
            }
            let alive: Vec<_> = self.alive.iter().cloned().collect();
            for process in &alive {
                self.end(process);
            }
            if alive.is_empty() && self.pending.is_empty() {
                break;
            }
        }
        let ids: Vec<_> = self.state.containers().map(str::to_owned).collect();
        for id in ids {
            self.request(Request::Delete(ProcessId::init(&id)));
            while !self.pending.is_empty() {
                self.complete(&first(), true);
            }
        }
    }
}

fn first() -> Index {
    // An index that always picks the first.
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut tree = any::<Index>()
        .new_tree(&mut TestRunner::deterministic())
        .unwrap();
    while tree.simplify() {}
    tree.current()
}

fn kill(process: ProcessId, signal: i32, all: bool) -> Request {
    Request::Kill {
        process,
        signal,
        all,
    }
}

fn is_outstanding(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Make(_)
            | Effect::Start(_)
            | Effect::Freeze(_)
            | Effect::Thaw(_)
            | Effect::Clean(_)
            | Effect::MakeSandbox
            | Effect::UndoSandbox
    )
}

fn count(told: &[Published], is: impl Fn(&Published) -> bool) -> usize {
    told.iter().filter(|event| is(event)).count()
}

fn is_init_exit(event: &Published) -> bool {
    matches!(event, Published::Exited { process, .. } if process.exec.is_none())
}

fn container_of(event: &Published) -> &str {
    match event {
        Published::Created { container, .. }
        | Published::Started { container, .. }
        | Published::Deleted { container, .. } => container,
        Published::ExecAdded(process)
        | Published::ExecStarted { process, .. }
        | Published::Exited { process, .. } => &process.container,
        Published::Paused(id) | Published::Resumed(id) | Published::OutOfMemory(id) => id,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: events keep their order, every caller is answered once,
    /// nobody's neighbours are killed, and nothing is left.
    #[test]
    fn order_holds(script in prop::collection::vec(moves(), 1..120)) {
        let mut world = World::default();
        for step in &script {
            if world.exited {
                break;
            }
            world.play(step);
        }
        if !world.exited {
            world.drain();
        }
        if !world.exited {
            prop_assert_eq!(world.state.containers().count(), 0);
            world.request(Request::ShutdownSandbox);
            while !world.pending.is_empty() {
                world.complete(&first(), true);
            }
            prop_assert!(world.exited);
        }
        let open: Vec<_> = world
            .asked
            .difference(&world.answered)
            .filter(|token| !world.left.contains(token))
            .collect();
        prop_assert!(open.is_empty(), "never answered: {:?}", open);
    }
}

/// The replies among some effects.
fn replies(effects: &[Effect]) -> Vec<(Token, Result<Reply, FailureKind>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply(token, result) => {
                Some((*token, result.clone().map_err(|failure| failure.kind)))
            }
            _ => None,
        })
        .collect()
}

fn published(effects: &[Effect]) -> Vec<Published> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish(event) => Some(event.clone()),
            _ => None,
        })
        .collect()
}

fn ask(state: &mut State, token: u64, request: Request) -> Effects {
    state.step(Event::Request(Token(token), request))
}

fn refused(state: &mut State, request: Request) -> FailureKind {
    match replies(&ask(state, 999, request)).as_slice() {
        [(Token(999), Err(kind))] => *kind,
        other => panic!("not refused: {other:?}"),
    }
}

const MADE: Made = Made {
    pid: 42,
    shares_pids: false,
};
const EXIT: Exit = Exit { code: 0, at_ms: 1 };

fn created(id: &str) -> State {
    let mut state = State::default();
    ask(&mut state, 1, Request::Create(id.into()));
    state.step(Event::Made(ProcessId::init(id), Ok(MADE)));
    state
}

fn running(id: &str) -> State {
    let mut state = created(id);
    ask(&mut state, 2, Request::Start(ProcessId::init(id)));
    state.step(Event::Started(id.into(), Ok(())));
    state
}

fn stopped(id: &str) -> State {
    let mut state = running(id);
    state.step(Event::Exited(ProcessId::init(id), EXIT));
    state
}

/// Contract 34, at its hardest: the process has died before Start has answered.
#[test]
fn an_early_exit_is_told_after_start() {
    let mut state = created("a");
    ask(&mut state, 2, Request::Start(ProcessId::init("a")));
    assert_eq!(
        published(&state.step(Event::Exited(ProcessId::init("a"), EXIT))),
        []
    );
    let effects = state.step(Event::Started("a".into(), Ok(())));
    assert_eq!(
        published(&effects),
        [
            Published::Started {
                container: "a".into(),
                pid: 42
            },
            Published::Exited {
                process: ProcessId::init("a"),
                pid: 42,
                exit: EXIT
            }
        ]
    );
}

/// containerd gives a create up by deleting what it does not know to be made.
#[test]
fn deleting_what_is_being_made_waits_and_deletes() {
    let mut state = State::default();
    let init = ProcessId::init("a");
    ask(&mut state, 1, Request::Create("a".into()));
    assert_eq!(ask(&mut state, 2, Request::Delete(init.clone())), []);
    let effects = state.step(Event::Made(init.clone(), Ok(MADE)));
    assert!(effects.contains(&Effect::KillRest("a".into())));
    let effects = state.step(Event::Exited(init.clone(), EXIT));
    assert!(effects.contains(&Effect::Clean(init.clone())));
    let effects = state.step(Event::Cleaned(init, Ok(())));
    assert!(matches!(replies(&effects).as_slice(), [(Token(2), Ok(_))]));
    assert!(state.is_idle());
}

#[test]
fn deleting_what_cannot_be_made_succeeds() {
    let mut state = State::default();
    let init = ProcessId::init("a");
    ask(&mut state, 1, Request::Create("a".into()));
    ask(&mut state, 2, Request::Delete(init.clone()));
    let effects = state.step(Event::Made(init, Err(Failure::internal("no"))));
    assert!(matches!(
        replies(&effects).as_slice(),
        [(Token(1), Err(_)), (Token(2), Ok(_))]
    ));
}

#[test]
fn a_forsaken_container_that_was_not_started_is_deleted_and_the_shim_exits() {
    let mut state = created("a");
    let init = ProcessId::init("a");
    state.step(Event::Forsaken);
    state.step(Event::Exited(init.clone(), EXIT));
    let effects = state.step(Event::Cleaned(init, Ok(())));
    assert_eq!(effects.last(), Some(&Effect::Exit(vec![NOBODY])));
    assert_eq!(
        refused(&mut state, Request::Create("b".into())),
        FailureKind::FailedPrecondition
    );
}

#[test]
fn a_forsaken_container_that_runs_runs_on() {
    let mut state = running("a");
    assert_eq!(state.step(Event::Forsaken), []);
    ask(&mut state, 9, Request::Create("b".into()));
    assert_eq!(state.step(Event::Forsaken), []);
}

#[test]
fn a_forsaken_sandbox_is_removed() {
    let mut state = State::default();
    ask(&mut state, 1, Request::CreateSandbox);
    state.step(Event::SandboxMade(Ok(0)));
    assert!(state.step(Event::Forsaken).contains(&Effect::UndoSandbox));
    let effects = state.step(Event::SandboxUndone(Ok(()), 5));
    assert_eq!(effects.last(), Some(&Effect::Exit(vec![NOBODY])));
}

/// Contract 35; and with a shared pid namespace the exec is killed, in the container's own cgroup.
#[test]
fn inits_exit_waits_for_its_execs() {
    let mut state = State::default();
    ask(&mut state, 1, Request::Create("a".into()));
    let made = Made {
        shares_pids: true,
        ..MADE
    };
    state.step(Event::Made(ProcessId::init("a"), Ok(made)));
    ask(&mut state, 2, Request::Start(ProcessId::init("a")));
    state.step(Event::Started("a".into(), Ok(())));
    let exec = ProcessId::exec("a", "x");
    ask(&mut state, 3, Request::Exec("a".into(), "x".into()));
    ask(&mut state, 4, Request::Start(exec.clone()));
    state.step(Event::Made(exec.clone(), Ok(MADE)));

    let effects = state.step(Event::Exited(ProcessId::init("a"), EXIT));
    assert_eq!(effects, [Effect::KillRest("a".into())]);
    assert_eq!(
        refused(&mut state, Request::Exec("a".into(), "y".into())),
        FailureKind::FailedPrecondition
    );
    let ends = published(&state.step(Event::Exited(exec.clone(), EXIT)));
    assert!(
        matches!(ends.as_slice(), [
            Published::Exited { process: first, .. },
            Published::Exited { process: second, .. },
        ] if *first == exec && second.exec.is_none()),
        "{ends:?}"
    );
}

/// The kernel ends a pid namespace with its init: there is nobody left to kill.
#[test]
fn of_its_own_pid_namespace_nothing_is_left_to_kill() {
    let effects = running("a").step(Event::Exited(ProcessId::init("a"), EXIT));
    assert!(!effects.contains(&Effect::KillRest("a".into())));
}

/// The codes of contract 22.
#[test]
fn refusals_have_their_codes() {
    let init = || ProcessId::init("a");
    let nobody = || ProcessId::init("nobody");
    let mut state = running("a");
    assert_eq!(
        refused(&mut state, Request::Create("a".into())),
        FailureKind::AlreadyExists
    );
    assert_eq!(
        refused(&mut state, Request::Start(init())),
        FailureKind::FailedPrecondition
    );
    assert_eq!(
        refused(&mut state, Request::Delete(init())),
        FailureKind::FailedPrecondition
    );
    assert_eq!(
        refused(&mut state, Request::Resume("a".into())),
        FailureKind::FailedPrecondition
    );
    ask(&mut state, 5, Request::Exec("a".into(), "x".into()));
    assert_eq!(
        refused(&mut state, Request::Exec("a".into(), "x".into())),
        FailureKind::AlreadyExists
    );
    for request in [
        Request::Start(nobody()),
        Request::Delete(nobody()),
        Request::Wait(nobody()),
        Request::State(nobody()),
        Request::Pause("nobody".into()),
        kill(nobody(), 9, false),
        Request::Perform(nobody(), Action::Pids),
        Request::Delete(ProcessId::exec("a", "nobody")),
        Request::StartSandbox,
        Request::SandboxStatus,
    ] {
        let what = format!("{request:?}");
        assert_eq!(
            refused(&mut state, request),
            FailureKind::NotFound,
            "{what}"
        );
    }
    let mut state = stopped("a");
    assert_eq!(
        refused(&mut state, kill(init(), 9, false)),
        FailureKind::NotFound
    );
    assert_eq!(
        refused(&mut state, Request::Start(init())),
        FailureKind::FailedPrecondition
    );
    assert_eq!(
        refused(&mut state, Request::Exec("a".into(), "x".into())),
        FailureKind::FailedPrecondition
    );
}

#[test]
fn of_two_creates_of_one_id_the_first_wins() {
    let mut state = State::default();
    ask(&mut state, 1, Request::Create("a".into()));
    assert_eq!(
        refused(&mut state, Request::Create("a".into())),
        FailureKind::AlreadyExists
    );
    let effects = state.step(Event::Made(ProcessId::init("a"), Ok(MADE)));
    assert_eq!(replies(&effects), [(Token(1), Ok(Reply::Pid(42)))]);
}

/// A retried Delete of a slow unmount is no error, nor a second unmount (contract 26).
#[test]
fn a_retried_delete_waits_for_the_first() {
    let mut state = stopped("a");
    let init = ProcessId::init("a");
    let effects = ask(&mut state, 5, Request::Delete(init.clone()));
    assert_eq!(effects, [Effect::Clean(init.clone())]);
    assert_eq!(ask(&mut state, 6, Request::Delete(init.clone())), []);
    let effects = state.step(Event::Cleaned(init, Ok(())));
    let ended = || {
        Ok(Reply::Exited {
            pid: 42,
            exit: EXIT,
        })
    };
    assert_eq!(
        replies(&effects),
        [(Token(5), ended()), (Token(6), ended())]
    );
}

/// After a failed clean-up Delete may be tried again.
#[test]
fn a_failed_delete_can_be_retried() {
    let mut state = stopped("a");
    let init = ProcessId::init("a");
    ask(&mut state, 5, Request::Delete(init.clone()));
    state.step(Event::Cleaned(init.clone(), Err(Failure::internal("busy"))));
    let effects = ask(&mut state, 6, Request::Delete(init.clone()));
    assert_eq!(effects, [Effect::Clean(init)]);
}

/// Contract 24.
#[test]
fn shutdown_is_ignored_while_the_pod_lives() {
    let mut state = stopped("a");
    let ignored = |token| [Effect::Reply(Token(token), Ok(Reply::Done))];
    assert_eq!(ask(&mut state, 7, Request::Shutdown), ignored(7));
    ask(&mut state, 8, Request::Delete(ProcessId::init("a")));
    state.step(Event::Cleaned(ProcessId::init("a"), Ok(())));
    let effects = ask(&mut state, 9, Request::Shutdown);
    assert_eq!(effects, [Effect::Exit(vec![Token(9)])]);

    let mut state = State::default();
    ask(&mut state, 1, Request::CreateSandbox);
    state.step(Event::SandboxMade(Ok(0)));
    assert_eq!(ask(&mut state, 2, Request::Shutdown), ignored(2));
}

/// Stop ends live containers first, then gives back what the sandbox holds; Wait returns; all of
/// it may be asked again (contract 19).
#[test]
fn stopping_a_sandbox_ends_its_containers() {
    let mut state = State::default();
    ask(&mut state, 1, Request::CreateSandbox);
    state.step(Event::SandboxMade(Ok(0)));
    ask(&mut state, 2, Request::StartSandbox);
    ask(&mut state, 3, Request::Create("a".into()));
    state.step(Event::Made(ProcessId::init("a"), Ok(MADE)));
    ask(&mut state, 4, Request::Create("late".into()));
    assert_eq!(ask(&mut state, 5, Request::WaitSandbox), []);

    let effects = ask(&mut state, 6, Request::StopSandbox);
    assert_eq!(effects, [Effect::Save, Effect::KillRest("a".into())]);
    assert_eq!(
        refused(&mut state, Request::Create("b".into())),
        FailureKind::FailedPrecondition
    );
    let effects = state.step(Event::Made(ProcessId::init("late"), Ok(MADE)));
    assert!(effects.contains(&Effect::KillRest("late".into())));
    state.step(Event::Exited(ProcessId::init("a"), EXIT));
    let effects = state.step(Event::Exited(ProcessId::init("late"), EXIT));
    assert!(effects.contains(&Effect::UndoSandbox));
    let exit = Exit { code: 0, at_ms: 77 };
    let ended = Reply::Exited { pid: 0, exit };
    assert_eq!(
        replies(&state.step(Event::SandboxUndone(Ok(()), 77))),
        [(Token(5), Ok(ended.clone())), (Token(6), Ok(Reply::Done))]
    );
    assert_eq!(
        replies(&ask(&mut state, 8, Request::WaitSandbox)),
        [(Token(8), Ok(ended))]
    );
    assert_eq!(
        replies(&ask(&mut state, 9, Request::StopSandbox)),
        [(Token(9), Ok(Reply::Done))]
    );
    let effects = ask(&mut state, 10, Request::ShutdownSandbox);
    assert_eq!(effects.len(), 2, "both containers are cleaned: {effects:?}");
}

/// SIGKILL must end a frozen container too: cgroup v1 keeps the signal until the thaw.
#[test]
fn killing_a_frozen_container_thaws_it() {
    let mut state = running("a");
    ask(&mut state, 3, Request::Pause("a".into()));
    state.step(Event::Frozen("a".into(), Ok(())));
    let effects = ask(&mut state, 4, kill(ProcessId::init("a"), 9, false));
    assert!(matches!(
        effects.as_slice(),
        [Effect::Signal { .. }, Effect::Thaw(id)] if id == "a"
    ));
}
