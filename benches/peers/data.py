"""The peer of benches/data.rs: from sound files to log-mel windows as the reference's loader does it, in Python.

python data.py make FOLDER                the files that both sides read
python data.py run FOLDER KIND WORKERS    prints windows per second

Not the reference's code, but its work: librosa reads and resamples (soxr HQ) every channel, the first is kept, the
loudness normalised, windows of 10 s go through int16, torchaudio makes the mel. The reference decodes mp3 by starting
ffmpeg for each file; libsndfile, used here, is faster than that.
"""

import json
import multiprocessing
import pathlib
import sys
import time

import librosa
import numpy as np
import soundfile
import torch
import torchaudio

RATE, WINDOW, SECONDS, FILES = 16000, 160000, 40, 24
KINDS = {"wav_16k": (16000, 1, "wav"), "wav_44k_stereo": (44100, 2, "wav"), "flac_44k_stereo": (44100, 2, "flac"),
         "mp3_44k_stereo": (44100, 2, "mp3")}


def make(folder):
    rng = np.random.default_rng(0)
    for kind, (rate, channels, extension) in KINDS.items():
        (folder / kind).mkdir(parents=True)
        t = np.arange(rate * SECONDS) / rate
        for i in range(FILES):
            tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * i) * t * (1 + 0.1 * np.sin(t)))
            noise = 0.05 * rng.standard_normal((len(t), channels))
            soundfile.write(folder / kind / f"{i}.{extension}", tone[:, None] + noise, rate)


def mel_transform():
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=RATE, n_fft=1024, win_length=1024, hop_length=160, center=True, pad_mode="reflect", power=2.0,
        norm=None, onesided=True, n_mels=64, f_min=50, f_max=8000)


MEL = None


def load(path):
    global MEL
    MEL = MEL or mel_transform()
    if path.suffix == ".mp3":
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
        data = librosa.resample(data.mean(axis=1), orig_sr=rate, target_sr=RATE)
    else:
        data, rate = librosa.load(path, sr=None, mono=False)
        if rate != RATE:
            data = librosa.resample(data, orig_sr=rate, target_sr=RATE)
        data = data if data.ndim == 1 else data[0]
    data = data / np.abs(data).max()
    data = np.trunc(np.clip(data, -1, 1) * 32767).astype(np.int16).astype(np.float32) / 32767
    windows = -(-len(data) // WINDOW)
    data = np.pad(data, (0, windows * WINDOW - len(data))).reshape(windows, WINDOW)
    out = [10 * torch.log10(torch.clamp(MEL(torch.from_numpy(w)), min=1e-10)).T for w in data]
    return torch.stack(out).shape[0]


def start():
    torch.set_num_threads(1)


def run(folder, kind, workers):
    files = sorted((folder / kind).iterdir())
    start()
    if workers == 1:
        load(files[0])
        rates = []
        for _ in range(3):
            begin = time.perf_counter()
            windows = sum(load(f) for f in files)
            rates.append(windows / (time.perf_counter() - begin))
    else:
        # As the reference's DataLoader: processes.
        with multiprocessing.Pool(workers, initializer=start) as pool:
            pool.map(load, files[: 2 * workers], chunksize=1)
            rates = []
            for _ in range(3):
                begin = time.perf_counter()
                windows = sum(pool.map(load, files, chunksize=1))
                rates.append(windows / (time.perf_counter() - begin))
    print(json.dumps(sorted(rates)[1]))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "make":
        make(folder)
    else:
        run(folder, sys.argv[3], int(sys.argv[4]))
