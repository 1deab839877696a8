//! The outcome of an operation that is under way: to be waited for, polled, or followed by a callback.

use parking_lot::{Condvar, Mutex};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::core::Callback;
use super::error::{ClientError, Reason};

type Then<T> = Box<dyn FnOnce(Result<T, ClientError>) + Send>;

enum State<T> {
    Waiting,
    Waker(Waker),
    Then(Then<T>),
    Done(Result<T, ClientError>),
    Taken,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

/// An operation under way. Dropping it does not take the operation back.
pub struct Pending<T> {
    shared: Arc<Shared<T>>,
}

/// The other end: completes it, or reports [`Reason::Closed`] when dropped.
pub struct Completer<T> {
    shared: Arc<Shared<T>>,
    used: bool,
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// An outcome that somebody will complete, and where to wait for it.
#[must_use]
pub fn pending<T>() -> (Completer<T>, Pending<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Waiting), done: Condvar::new() });
    (Completer { shared: shared.clone(), used: false }, Pending { shared })
}

impl<T> Completer<T> {
    /// This is the outcome.
    pub fn complete(mut self, outcome: Result<T, ClientError>) {
        self.used = true;
        self.shared.complete(outcome);
    }
}

impl<T: Send + 'static> Completer<T> {
    /// Completes it on the client's worker.
    pub(crate) fn callback(self) -> Callback<T> {
        Box::new(move |_, outcome| self.complete(outcome))
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        if !self.used {
            self.shared.complete(Err(ClientError::new(Reason::Closed)));
        }
    }
}

impl<T> Shared<T> {
    fn complete(&self, outcome: Result<T, ClientError>) {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Then(then) => {
                drop(state);
                then(outcome);
            }
            State::Waker(waker) => {
                *state = State::Done(outcome);
                drop(state);
                waker.wake();
            }
            State::Waiting | State::Done(_) | State::Taken => {
                *state = State::Done(outcome);
                self.done.notify_all();
            }
        }
    }

    fn take(state: &mut State<T>) -> Option<Result<T, ClientError>> {
        match std::mem::replace(state, State::Taken) {
            State::Done(outcome) => Some(outcome),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl<T> Pending<T> {
    /// Waits for the outcome. Never call it on a runtime worker.
    ///
    /// # Errors
    /// The operation's own.
    pub fn wait(self) -> Result<T, ClientError> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(outcome) = Shared::take(&mut state) {
                return outcome;
            }
            self.shared.done.wait(&mut state);
        }
    }

    /// Waits at most `timeout`; gives itself back when that was too short.
    ///
    /// # Errors
    /// `Err(self)` when there is no outcome yet.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<T, ClientError>, Self> {
        let outcome = {
            let mut state = self.shared.state.lock();
            self.shared.done.wait_while_for(
                &mut state,
                |state| !matches!(state, State::Done(_)),
                timeout,
            );
            Shared::take(&mut state)
        };
        outcome.ok_or(self)
    }

    /// Calls `f` with the outcome, on the client's thread (or here, when it is known already). `f` must not block.
    pub fn then(self, f: impl FnOnce(Result<T, ClientError>) + Send + 'static) {
        let mut state = self.shared.state.lock();
        match Shared::take(&mut state) {
            Some(outcome) => {
                drop(state);
                f(outcome);
            }
            None => *state = State::Then(Box::new(f)),
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, ClientError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock();
        match Shared::take(&mut state) {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                *state = State::Waker(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn waited_for_followed_and_polled() {
        let (completer, waiting) = pending();
        completer.complete(Ok(1));
        assert_eq!(waiting.wait(), Ok(1));

        let seen = Arc::new(AtomicU32::new(0));
        let (completer, followed) = pending();
        let sink = seen.clone();
        followed.then(move |outcome| sink.store(outcome.unwrap(), Ordering::SeqCst));
        completer.complete(Ok(7));
        assert_eq!(seen.load(Ordering::SeqCst), 7);

        let (completer, polled) = pending::<u32>();
        let polled = polled.wait_timeout(Duration::from_millis(1)).unwrap_err();
        let mut context = Context::from_waker(Waker::noop());
        let mut polled = Box::pin(polled);
        assert!(polled.as_mut().poll(&mut context).is_pending());
        drop(completer);
        let Poll::Ready(Err(error)) = polled.as_mut().poll(&mut context) else { panic!("ready") };
        assert_eq!(error.reason, Reason::Closed);
    }
}
