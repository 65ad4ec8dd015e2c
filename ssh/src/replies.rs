//! Replies in the order of their requests, also where some are answered later than others
//! (RFC 4254 sections 4 and 5.4).

use std::collections::VecDeque;

/// The requests that wait, oldest first. `M` is what a request needs for its reply.
#[derive(Debug)]
pub(crate) struct Replies<M, R> {
    waiting: VecDeque<(M, Option<R>)>,
    /// The number of the oldest.
    first: u64,
}

impl<M, R> Default for Replies<M, R> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), first: 0 }
    }
}

impl<M, R> Replies<M, R> {
    /// A request, answered already or not yet; its number.
    pub fn push(&mut self, request: M, answer: Option<R>) -> u64 {
        let number = self.first.wrapping_add(u64::try_from(self.waiting.len()).unwrap_or(0));
        self.waiting.push_back((request, answer));
        number
    }

    /// Answers the request of that number, once; `false` if there is none that waits.
    pub fn answer(&mut self, number: u64, answer: R) -> bool {
        let place = number.checked_sub(self.first).and_then(|it| usize::try_from(it).ok());
        match place.and_then(|place| self.waiting.get_mut(place)) {
            Some((_, empty @ None)) => {
                *empty = Some(answer);
                true
            }
            _ => false,
        }
    }

    /// The next reply that may go out.
    pub fn pop(&mut self) -> Option<(M, R)> {
        self.waiting.front()?.1.as_ref()?;
        let (request, answer) = self.waiting.pop_front()?;
        self.first = self.first.wrapping_add(1);
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some((request, answer?))
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_keep_the_order_of_requests() {
        let mut replies = Replies::<char, u8>::default();
        let a = replies.push('a', None);
        replies.push('b', Some(2));
        let c = replies.push('c', None);
        assert_eq!(replies.pop(), None);
        assert!(replies.answer(c, 3) && !replies.answer(c, 4) && !replies.answer(c + 1, 4));
        assert_eq!(replies.pop(), None);
        assert!(replies.answer(a, 1));
        let all: Vec<_> = std::iter::from_fn(|| replies.pop()).collect();
        assert_eq!(all, [('a', 1), ('b', 2), ('c', 3)]);
        assert!(!replies.answer(a, 1) && replies.len() == 0);
    }
}
