//! Speaker positions of the channels of a recording. They give each channel its weight in the loudness (ITU-R
//! BS.1770-4) and in the downmix to one channel (ITU-R BS.775-4). They also identify the LFE channel, which carries no
//! voice.

/// Limit on the channels of a recording. A call has two legs, a conference recording a few more.
pub(super) const MAX_CHANNELS: usize = 8;

/// Bits of the channel mask of `WAVE_FORMAT_EXTENSIBLE`. Symphonia's positions use the same bits.
const FRONT_CENTRE: u64 = 1 << 2;
const LOW_FREQUENCY: u64 = 1 << 3 | 1 << 18;
const BACK_PAIR: u64 = 1 << 4 | 1 << 5;
const SIDE_PAIR: u64 = 1 << 9 | 1 << 10;
/// Left and right, wide left and right, and the positions between these and the centre.
const FRONT: u64 = 1 << 0 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 24 | 1 << 25;

/// Position of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ChannelPosition {
    /// Position not given: a leg of a call.
    #[default]
    Unplaced,
    Front,
    Centre,
    /// Beside or slightly behind the listener (60 to 120 degrees).
    Surround,
    /// Behind or above the listener.
    Behind,
    /// LFE: film effects below 120 Hz.
    LowFrequency,
}

impl ChannelPosition {
    /// Weight in the loudness: BS.1770-4 table 3 and annex 3 table 4.
    const fn weight(self) -> f64 {
        match self {
            Self::Surround => 1.41,
            Self::LowFrequency => 0.0,
            Self::Unplaced | Self::Front | Self::Centre | Self::Behind => 1.0,
        }
    }

    /// Share in the downmix to one channel: BS.775-4 table 2.
    const fn share(self) -> f32 {
        match self {
            Self::Unplaced | Self::Centre => 1.0,
            Self::Front => std::f32::consts::FRAC_1_SQRT_2,
            Self::Surround | Self::Behind => 0.5,
            Self::LowFrequency => 0.0,
        }
    }
}

/// Positions of all channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout([ChannelPosition; MAX_CHANNELS]);

impl Layout {
    /// All positions unknown.
    pub const UNPLACED: Self = Self([ChannelPosition::Unplaced; MAX_CHANNELS]);

    /// From a channel mask: its bits, from the lowest up, are the positions of the channels in order. Channels beyond
    /// the mask have no position.
    #[must_use]
    pub fn of_mask(mask: u64) -> Self {
        let mut layout = Self::default();
        let places = (0..u64::BITS).map(|bit| 1u64 << bit).filter(|place| mask & place != 0);
        for (speaker, place) in layout.0.iter_mut().zip(places) {
            *speaker = match place {
                FRONT_CENTRE => ChannelPosition::Centre,
                place if place & LOW_FREQUENCY != 0 => ChannelPosition::LowFrequency,
                place if place & FRONT != 0 => ChannelPosition::Front,
                place if place & SIDE_PAIR != 0 => ChannelPosition::Surround,
                // Without a side pair (five channels) the back pair is beside the listener. With one (seven channels)
                // it is behind.
                place if place & BACK_PAIR != 0 && mask & SIDE_PAIR == 0 => ChannelPosition::Surround,
                _ => ChannelPosition::Behind,
            };
        }
        layout
    }

    /// Loudness weights of the first `channels` channels.
    #[must_use]
    pub fn weights(self, channels: usize) -> Vec<f64> {
        self.0.iter().take(channels).map(|speaker| speaker.weight()).collect()
    }

    /// Downmix shares of the first `channels` channels. Their sum is 1.
    #[must_use]
    pub fn shares(self, channels: usize) -> Vec<f32> {
        let shares = self.0.iter().take(channels).map(|speaker| speaker.share());
        let whole: f32 = shares.clone().sum();
        shares.map(|share| share / whole.max(f32::MIN_POSITIVE)).collect()
    }

    /// Removes the LFE channels from `planes`. A recording with LFE channels alone keeps them, because such a channel
    /// is a mislabelled voice.
    pub fn drop_low_frequency(&mut self, planes: &mut Vec<Vec<f32>>) {
        let low = |speaker: &ChannelPosition| *speaker == ChannelPosition::LowFrequency;
        let count = planes.len().min(MAX_CHANNELS);
        if !self.0[..count].iter().any(low) || self.0[..count].iter().all(low) {
            return;
        }
        let mut speakers = self.0.iter();
        planes.retain(|_| speakers.next().is_none_or(|speaker| !low(speaker)));
        let mut kept = Self::default();
        for (to, from) in kept.0.iter_mut().zip(self.0[..count].iter().filter(|speaker| !low(speaker))) {
            *to = *from;
        }
        *self = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_ONE_BACK: u64 = 0x3f;
    const FIVE_ONE_SIDE: u64 = 0x60f;
    const SEVEN_ONE: u64 = 0x63f;

    #[test]
    fn weights_are_those_of_the_recommendation() {
        let five_one = [1.0, 1.0, 1.0, 0.0, 1.41, 1.41];
        assert_eq!(Layout::of_mask(FIVE_ONE_BACK).weights(6), five_one);
        assert_eq!(Layout::of_mask(FIVE_ONE_SIDE).weights(6), five_one);
        // Table 4: at 135 degrees and more the weight is 1 again.
        assert_eq!(Layout::of_mask(SEVEN_ONE).weights(8), [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.41, 1.41]);
        assert_eq!(Layout::default().weights(4), [1.0; 4]);
    }

    #[test]
    fn shares_add_up_to_one() {
        for (mask, channels) in [(0, 3), (0x3, 2), (FIVE_ONE_SIDE, 6), (SEVEN_ONE, 8), (0xb, 3)] {
            let shares = Layout::of_mask(mask).shares(channels);
            assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{mask:#x}: {shares:?}");
        }
        let shares = Layout::of_mask(FIVE_ONE_BACK).shares(6);
        assert!((shares[2] / shares[0] - std::f32::consts::SQRT_2).abs() < 1e-6, "{shares:?}");
        assert!((shares[2] / shares[4] - 2.0).abs() < 1e-6 && shares[3].abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn a_channel_of_low_frequency_is_taken_out_and_a_lone_one_stays() {
        let planes = |count: usize| (0..count).map(|n| vec![n as f32]).collect::<Vec<_>>();
        let mut layout = Layout::of_mask(FIVE_ONE_SIDE);
        let mut six = planes(6);
        layout.drop_low_frequency(&mut six);
        assert_eq!(six.iter().map(|plane| plane[0]).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 4.0, 5.0]);
        assert_eq!(layout.weights(5), [1.0, 1.0, 1.0, 1.41, 1.41]);
        let (mut lone, mut one) = (Layout::of_mask(1 << 3), planes(1));
        lone.drop_low_frequency(&mut one);
        assert_eq!(one.len(), 1);
        let (mut plain, mut two) = (Layout::default(), planes(2));
        plain.drop_low_frequency(&mut two);
        assert_eq!(two.len(), 2);
    }

    #[test]
    fn more_channels_than_places_have_none() {
        assert_eq!(Layout::of_mask(0x3).weights(4), [1.0; 4]);
        assert_eq!(Layout::of_mask(u64::MAX).weights(8).len(), 8);
    }
}
