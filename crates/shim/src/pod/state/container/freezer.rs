//! Pausing and resuming.
use super::super::{Effect, Effects, Published, Reply, State, Status, Token};
use super::Container;
use crate::failure::Failure;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Freezer {
    #[default]
    Thawed,
    Freezing(Token),
    Frozen,
    Thawing(Token),
}

impl State {
    pub(in crate::pod::state) fn pause(
        &mut self,
        token: Token,
        id: &str,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let container = self.at(id, Freezer::Thawed, "paused")?;
        container.freezer = Freezer::Freezing(token);
        out.push(Effect::Freeze(id.to_owned()));
        Ok(())
    }

    pub(in crate::pod::state) fn resume(
        &mut self,
        token: Token,
        id: &str,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let container = self.at(id, Freezer::Frozen, "resumed")?;
        container.freezer = Freezer::Thawing(token);
        out.push(Effect::Thaw(id.to_owned()));
        Ok(())
    }

    /// The container, if it runs and its freezer is `there`: else it cannot be `turned`.
    fn at(&mut self, id: &str, there: Freezer, turned: &str) -> Result<&mut Container, Failure> {
        let container = self.container(id)?;
        if container.running() && container.freezer == there {
            return Ok(container);
        }
        let status = container.init.view(container.freezer).status;
        let wanted = match there {
            Freezer::Frozen => Status::Paused,
            _ => Status::Running,
        };
        Err(Failure::precondition(format!(
            "container {id} cannot be {turned}: it is {status}, not {wanted}"
        )))
    }

    pub(in crate::pod::state) fn frozen(
        &mut self,
        id: &str,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        let Ok(container) = self.container(id) else {
            return;
        };
        if let Freezer::Freezing(token) = container.freezer {
            let ends = (Freezer::Thawed, Freezer::Frozen);
            container.settle(token, ends, Published::Paused(id.to_owned()), result, out);
        }
    }

    pub(in crate::pod::state) fn thawed(
        &mut self,
        id: &str,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        let Ok(container) = self.container(id) else {
            return;
        };
        if let Freezer::Thawing(token) = container.freezer {
            let ends = (Freezer::Frozen, Freezer::Thawed);
            container.settle(token, ends, Published::Resumed(id.to_owned()), result, out);
        }
    }
}

impl Container {
    /// Ends what `token` asked of the freezer: at the second of `ends`, or back at the first.
    fn settle(
        &mut self,
        token: Token,
        ends: (Freezer, Freezer),
        event: Published,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        self.freezer = if result.is_ok() { ends.1 } else { ends.0 };
        if result.is_ok() {
            out.push(Effect::Save);
            out.push(Effect::Publish(event));
        }
        out.push(Effect::Reply(token, result.map(|()| Reply::Done)));
    }
}
