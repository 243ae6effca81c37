pub mod resample;
