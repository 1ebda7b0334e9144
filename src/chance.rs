//! Where new ids and random waits come from: the system, except on a thread that simulates. There a
//! seed decides, so that a run repeats exactly.

use uuid::Uuid;

/// A new, time-ordered id (UUID version 7, RFC 9562).
pub(crate) fn new_id() -> Uuid {
    #[cfg(feature = "simulation")]
    if let Some(id) = seeded::new_id() {
        return id;
    }
    Uuid::now_v7()
}

/// A random id (UUID version 4, RFC 9562).
#[cfg(feature = "runtime")]
pub(crate) fn random_id() -> Uuid {
    #[cfg(feature = "simulation")]
    if let Some(id) = seeded::random_id() {
        return id;
    }
    Uuid::new_v4()
}

/// A wait, spread by this share of itself, if a seed decides; `None`: the system does.
#[cfg(feature = "runtime")]
#[cfg_attr(not(feature = "simulation"), expect(unused_variables, reason = "nothing is seeded"))]
pub(crate) fn seeded_spread(wait: std::time::Duration, share: f64) -> Option<std::time::Duration> {
    #[cfg(feature = "simulation")]
    return seeded::spread(wait, share);
    #[cfg(not(feature = "simulation"))]
    None
}

/// Whether a seed decides on this thread.
#[cfg(feature = "runtime")]
pub(crate) fn is_seeded() -> bool {
    #[cfg(feature = "simulation")]
    return seeded::is_seeded();
    #[cfg(not(feature = "simulation"))]
    false
}

#[cfg(feature = "simulation")]
pub(crate) use seeded::Seeded;

#[cfg(feature = "simulation")]
mod seeded {
    use std::{cell::RefCell, marker::PhantomData, time::Duration};

    use fastrand::Rng;
    use uuid::Uuid;

    thread_local! {
        static SOURCE: RefCell<Option<(Rng, u64)>> = const { RefCell::new(None) };
    }

    /// For as long as it lives, this thread draws from a seed.
    pub(crate) struct Seeded(PhantomData<*const ()>);

    impl Seeded {
        pub(crate) fn with(seed: u64) -> Self {
            SOURCE.set(Some((Rng::with_seed(seed), 0)));
            Self(PhantomData)
        }
    }

    impl Drop for Seeded {
        fn drop(&mut self) {
            SOURCE.set(None);
        }
    }

    pub(super) fn is_seeded() -> bool {
        SOURCE.with_borrow(Option::is_some)
    }

    /// The place of the time holds a counter: ids sort by age, and no clock is read.
    pub(super) fn new_id() -> Option<Uuid> {
        SOURCE.with_borrow_mut(|source| {
            let (random, count) = source.as_mut()?;
            *count += 1;
            let mut bytes = [0; 10];
            random.fill(&mut bytes);
            Some(uuid::Builder::from_unix_timestamp_millis(*count, &bytes).into_uuid())
        })
    }

    pub(super) fn random_id() -> Option<Uuid> {
        SOURCE.with_borrow_mut(|source| {
            let (random, _) = source.as_mut()?;
            Some(uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid())
        })
    }

    pub(super) fn spread(wait: Duration, share: f64) -> Option<Duration> {
        SOURCE.with_borrow_mut(|source| {
            let (random, _) = source.as_mut()?;
            Some(wait.mul_f64(1.0 + share * (2.0 * random.f64() - 1.0)))
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn draw(seed: u64) -> (Option<Uuid>, Option<Uuid>, Option<Duration>) {
            let _seeded = Seeded::with(seed);
            (new_id(), new_id(), spread(Duration::from_secs(1), 0.5))
        }

        #[test]
        fn a_seed_draws_the_same_again_and_another_one_others() {
            assert_eq!(draw(1), draw(1));
            assert_ne!(draw(1), draw(2));
            let (first, second, wait) = draw(1);
            assert!(first < second);
            assert_eq!(first.unwrap().get_version_num(), 7);
            let range = Duration::from_millis(500)..=Duration::from_millis(1500);
            assert!(range.contains(&wait.unwrap()), "{wait:?}");
        }

        #[test]
        fn without_a_seed_the_system_decides() {
            drop(Seeded::with(1));
            assert_eq!((new_id(), is_seeded()), (None, false));
        }
    }
}
