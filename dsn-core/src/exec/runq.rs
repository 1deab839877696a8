//! Events waiting on one worker: three queues served by weight.
//!
//! Smooth weighted round robin over the non-empty queues, 16 : 4 : 1 for HIGH : COMMON : LOW by default.
//! HIGH goes first in an idle worker, and LOW gets its share however busy HIGH is.

use super::task::Task;
use crate::code::Priority;
use std::collections::VecDeque;

/// Waiting events of one worker.
#[derive(Debug)]
pub struct RunQueue {
    queues: [VecDeque<Task>; Priority::COUNT],
    weights: [u32; Priority::COUNT],
    credits: [u32; Priority::COUNT],
    len: usize,
}

impl RunQueue {
    /// Weights in the order LOW, COMMON, HIGH; zeros are taken as 1.
    pub fn new(weights: [u32; Priority::COUNT]) -> Self {
        let weights = weights.map(|w| w.max(1));
        Self { queues: Default::default(), weights, credits: weights, len: 0 }
    }

    /// Events waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an event behind those of its priority.
    pub fn push(&mut self, priority: Priority, task: Task) {
        self.queues[priority.index()].push_back(task);
        self.len += 1;
    }

    /// The next event: highest priority that has both events and credit; credits refill when none has.
    pub fn pop(&mut self) -> Option<Task> {
        if self.len == 0 {
            return None;
        }
        loop {
            for index in (0..Priority::COUNT).rev() {
                if self.credits[index] == 0 {
                    continue;
                }
                if let Some(task) = self.queues[index].pop_front() {
                    self.credits[index] -= 1;
                    self.len -= 1;
                    return Some(task);
                }
            }
            self.credits = self.weights;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{CodeDef, CodeKind};
    use crate::time::Mono;
    use std::time::Duration;

    static LOW: CodeDef =
        CodeDef::new("T_LOW", CodeKind::Compute, Priority::Low, "S", Duration::from_secs(1));
    static HIGH: CodeDef =
        CodeDef::new("T_HIGH", CodeKind::Compute, Priority::High, "S", Duration::from_secs(1));

    fn task(code: &'static CodeDef) -> Task {
        Task::new(code, None, Mono::ZERO, Box::new(|_, _| {}))
    }

    #[test]
    fn low_gets_its_share_under_a_flood_of_high() {
        let mut queue = RunQueue::new([1, 4, 16]);
        for _ in 0..100 {
            queue.push(Priority::High, task(&HIGH));
            queue.push(Priority::Low, task(&LOW));
        }
        let first: Vec<_> = (0..34).map(|_| queue.pop().unwrap().code().name()).collect();
        assert_eq!(first[0], "T_HIGH", "high first");
        assert_eq!(
            first.iter().filter(|n| **n == "T_LOW").count(),
            2,
            "one in seventeen: {first:?}"
        );
        let mut rest = 0;
        while queue.pop().is_some() {
            rest += 1;
        }
        assert_eq!(rest, 200 - 34);
    }
}
