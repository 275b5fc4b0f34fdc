#!/usr/bin/env python3
"""Make a voice file (prompt_cache.gguf) for MiniCPM-o's own voice of a recording, to be named by REF_AUDIO_PATH.

    make_voice.py --model gguf/minicpm-o-4.5 --wav me.wav --tokenizer speech_tokenizer_v2_25hz.onnx \\
                  --speaker campplus.onnx --out me.gguf

The recording: one person, 3 to 30 s, any WAV of 16 bits. Two networks that come with the model's Python release are
needed once: the S3 speech tokenizer (25 codes a second, of Whisper's 128-band log-mel at 16 kHz) and CAM++ (the speaker,
of Kaldi's 80-band filterbank at 16 kHz). Steps of the flow and chunk sizes are taken from the model's own voice file.

    make_voice.py --model FOLDER --arrays prompt.npz --out me.gguf

skips the recording: prompt.npz holds `tokens` [N] (codes), `mel` [2N, 80] (natural logarithm, 50 frames a second) and
`speaker` [192], made elsewhere.

Needs numpy and gguf; with --wav also onnxruntime. What the front end computes follows minicpmo-utils 1.0.7
(`stepaudio2`): tokens and three more to look ahead, mel of 24 kHz with 1920-sample windows every 480. Licence MIT.
"""

import argparse
import sys
import wave
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import gguf  # noqa: E402
from layout import KEYS, TOKEN2WAV, Sizes, read, write_prompt_cache  # noqa: E402
from reference import prompt_cache  # noqa: E402

F = np.float32
SHORTEST, LONGEST = 3.0, 30.0


class Refused(Exception):
    """A sentence for the person."""


# ---------- sound


def read_wav(path):
    """Mono samples from -1 to 1, and their rate."""
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise Refused(f"{path}: samples of {8 * file.getsampwidth()} bits; give a WAV of 16 bits")
            rate, channels = file.getframerate(), file.getnchannels()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(F) / F(32768)
    except (wave.Error, EOFError, OSError) as e:
        raise Refused(f"{path}: {e}; give a WAV of 16 bits (`ffmpeg -i … -c:a pcm_s16le out.wav` makes one)") from e
    samples = samples.reshape(-1, channels).mean(1)
    if not SHORTEST <= len(samples) / rate <= LONGEST:
        raise Refused(f"{path}: {len(samples) / rate:.1f} s; a prompt has {SHORTEST:.0f} to {LONGEST:.0f} s")
    return samples, rate


def resample(x, rate, to):
    """Band-limited, by a windowed sinc of 64 zero crossings."""
    if rate == to:
        return x.astype(F)
    cutoff, half = min(1.0, to / rate), 64
    reach = int(np.ceil(half / cutoff))
    padded = np.pad(x.astype(np.float64), reach + 1)
    at = np.arange(int(len(x) * to / rate)) * (rate / to)
    base = np.floor(at).astype(int)
    out = np.zeros(len(at))
    for k in range(-reach, reach + 1):
        t = at - (base + k)
        window = np.where(np.abs(t) < reach, 0.5 + 0.5 * np.cos(np.pi * t / reach), 0.0)
        out += padded[base + k + reach + 1] * np.sinc(t * cutoff) * cutoff * window
    return out.astype(F)


def slaney_mels(rate, n_fft, bands, low, high):
    """librosa's filters: Slaney's scale and area."""
    to_mel = lambda f: np.where(f < 1000, f * 3 / 200, 15 + np.log(np.maximum(f, 1e-9) / 1000) / (np.log(6.4) / 27))
    to_hertz = lambda m: np.where(m < 15, m * 200 / 3, 1000 * np.exp((m - 15) * (np.log(6.4) / 27)))
    edges = to_hertz(np.linspace(to_mel(np.float64(low)), to_mel(np.float64(high)), bands + 2))
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    ramps = edges[:, None] - bins[None]
    rise, fall = -ramps[:-2] / np.diff(edges)[:-1, None], ramps[2:] / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def windows(x, size, hop):
    return np.lib.stride_tricks.sliding_window_view(x, size)[::hop]


def mel_24k(x):
    """[frames, 80]: the mel that the flow was trained on."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1920) / 1920)
    spectrum = np.fft.rfft(windows(np.pad(x, 720, mode="reflect"), 1920, 480) * hann, axis=1)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
    return np.log(np.maximum(magnitude @ slaney_mels(24000, 1920, 80, 0, 8000).T, 1e-5)).astype(F)


def whisper_mel(x):
    """[128, frames] at 16 kHz, as the speech tokenizer takes it."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(windows(np.pad(x, 200, mode="reflect"), 400, 160)[:-1] * hann, axis=1)) ** 2
    log = np.log10(np.maximum(slaney_mels(16000, 400, 128, 0, 8000) @ power.T, 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).astype(F)


def kaldi_fbank(x):
    """[frames, 80] at 16 kHz, without dither, minus its mean over time."""
    frames = windows(x.astype(np.float64), 400, 160).copy()
    frames -= frames.mean(1, keepdims=True)
    frames = np.concatenate([frames[:, :1] * (1 - 0.97), frames[:, 1:] - 0.97 * frames[:, :-1]], 1)
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frames * povey, 512, axis=1))[:, :256] ** 2
    mel = lambda f: 1127 * np.log(1 + f / 700)
    edges = np.linspace(mel(20), mel(8000), 82)
    at = mel(np.arange(256) * 16000 / 512)[None]
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.maximum(0, np.minimum((at - left) / (centre - left), (right - at) / (right - centre)))
    bank = np.log(np.maximum(power @ filters.T, np.finfo(F).eps))
    return (bank - bank.mean(0)).astype(F)


def run(path, inputs):
    try:
        import onnxruntime
    except ImportError as e:
        raise Refused("onnxruntime is missing: `pip install onnxruntime`") from e
    if not Path(path).is_file():
        raise Refused(f"{path}: there is no such file; it comes with the model's Python release")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    if len(names) != len(inputs):
        raise Refused(f"{path}: it takes {len(names)} inputs ({', '.join(names)}) where {len(inputs)} are expected")
    return session.run(None, dict(zip(names, inputs)))[0]


def front_end(wav, tokenizer, speaker):
    """Codes, mel and speaker of a recording."""
    samples, rate = read_wav(wav)
    low = resample(samples, rate, 16000)
    mel = whisper_mel(low)
    tokens = np.asarray(run(tokenizer, [mel[None], np.array([mel.shape[1]], np.int32)])).reshape(-1).astype(np.int64)
    vector = np.asarray(run(speaker, [kaldi_fbank(low)[None]])).reshape(-1).astype(F)
    return tokens, mel_24k(resample(samples, rate, 24000)), vector


# ---------- the voice file


def fit(tokens, mel, speaker, extra):
    """Checks the three against the model; mel is cut or its last frame repeated, to two frames a code."""
    codes, bands = extra["input_embedding.weight"].shape[0], extra["encoder_proj.bias"].size
    width = extra["spk_embed_affine_layer.weight"].shape[1]
    if tokens.ndim != 1 or len(tokens) < 4 or tokens.min() < 0 or tokens.max() >= codes:
        raise Refused(f"tokens must be at least 4 codes from 0 to {codes - 1}")
    if mel.ndim != 2 or mel.shape[1] != bands or not np.isfinite(mel).all():
        raise Refused(f"mel has the shape {mel.shape}; the model's has {bands} bands")
    if speaker.shape != (width,) or not np.isfinite(speaker).all():
        raise Refused(f"the speaker has the shape {speaker.shape}; the model's has {width} numbers")
    frames = 2 * len(tokens)
    return np.concatenate([mel, np.repeat(mel[-1:], max(0, frames - len(mel)), 0)])[:frames].astype(F)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, required=True, help="folder of the model with token2wav-gguf/")
    arguments.add_argument("--wav", type=Path, help="the recording")
    arguments.add_argument("--tokenizer", type=Path, help="speech_tokenizer_v2_25hz.onnx")
    arguments.add_argument("--speaker", type=Path, help="campplus.onnx")
    arguments.add_argument("--arrays", type=Path, help="tokens, mel and speaker made elsewhere, instead of a recording")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--seed", type=int, default=0, help="of the flow's noise (%(default)s)")
    given = arguments.parse_args()
    try:
        folder = given.model / TOKEN2WAV
        for name in ("encoder", "flow_extra", "flow_matching", "prompt_cache"):
            if not (folder / f"{name}.gguf").is_file():
                raise Refused(f"{folder / name}.gguf is missing: `vidette pull --voice` fetches the model's voice")
        if given.arrays:
            arrays = np.load(given.arrays)
            tokens, mel, speaker = arrays["tokens"], arrays["mel"].astype(F), arrays["speaker"].astype(F)
        elif given.wav and given.tokenizer and given.speaker:
            tokens, mel, speaker = front_end(given.wav, given.tokenizer, given.speaker)
        else:
            raise Refused("give --wav with --tokenizer and --speaker, or --arrays")
        encoder, extra, flow = (read(folder / f"{n}.gguf") for n in ("encoder", "flow_extra", "flow_matching"))
        mel = fit(tokens, mel, speaker, extra)
        steps = int(gguf.GGUFReader(folder / "prompt_cache.gguf").get_field(KEYS + "n_timesteps").contents())
        noise = np.random.default_rng(given.seed).standard_normal(mel.shape).astype(F)
        # Three codes are only looked at; 1.0.7 takes the prompt's own first three.
        ahead = np.concatenate([tokens, tokens[:3]])
        cache = prompt_cache(encoder, extra, flow, steps, ahead, mel, speaker, noise)
        write_prompt_cache(None, Sizes(steps=steps), cache, path=given.out)
    except Refused as e:
        sys.exit(f"make_voice.py: {e}")
    seconds = len(tokens) / 25
    print(f"{given.out}: a voice of {seconds:.1f} s, {steps} steps, {given.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
