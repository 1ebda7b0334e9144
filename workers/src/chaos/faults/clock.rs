//! A process whose wall clock jumps, and jumps back.

use crate::chaos::{
    error::ChaosError,
    fleet::{Fleet, Slot},
    random::Draw,
};

/// By seconds up to hours, forwards or backwards.
pub(super) async fn jump(fleet: &Fleet, draw: &mut Draw) -> Result<String, ChaosError> {
    let all: Vec<&Slot> = fleet.slots().iter().collect();
    let slot = draw.one_of(&all).copied();
    let Some((slot, clock)) = slot.and_then(|slot| Some((slot, slot.clock.as_ref()?))) else {
        let words = "no clock can jump: the library that shifts clocks could not be compiled";
        return Err(ChaosError::Missing(words.into()));
    };
    let far = draw.happens(50);
    let distance = if far { draw.millis(600_000..36_000_000) } else { draw.millis(2_000..90_000) };
    let millis = i64::try_from(distance.as_millis()).unwrap_or_default();
    let millis = if draw.happens(50) { millis } else { -millis };
    let length = draw.millis(500..2_500);
    clock.shift(millis)?;
    tokio::time::sleep(length).await;
    clock.shift(0)?;
    Ok(format!("{} by {} s for {length:?}", slot.name, millis / 1_000))
}
