"""The person with the camera: LiveKit's official Python SDK, steered by lines on stdin, telling in JSON lines.

Usage: livekit_client.py URL TOKEN [vp8|h264|vp9|none] [simulcast] [WIDTHxHEIGHT]
Commands: color R G B | size W H | mute | unmute | unpublish | publish | quit
Told: connected, published, subscribed, tracks (audio tracks of others), tone (heard in the last half second), state,
sent (frames so far, with what was asked of the sender: key frames, packets again; and the sizes that it sends)
"""

import asyncio
import json
import sys

import numpy as np
from livekit import rtc

RATE = 48000
FPS = 15


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


class Client:
    def __init__(self, codec, simulcast, size):
        self.codec, self.simulcast = codec, simulcast
        self.color, self.size = (200, 40, 60), size
        self.room = None
        self.source = self.track = self.publication = None
        self.sent = 0

    async def hear(self, track, identity):
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1)
        heard = np.zeros(0, np.int16)
        async for event in stream:
            heard = np.concatenate([heard, np.frombuffer(event.frame.data, dtype=np.int16)])
            if len(heard) < RATE // 2:
                continue
            x = heard[: RATE // 2].astype(float)
            heard = heard[RATE // 2 :]
            spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
            hz = float(np.argmax(spectrum) * RATE / len(x))
            tell("tone", hz=hz, rms=float(np.sqrt((x**2).mean())), identity=identity)

    def count_tracks(self, *_):
        people = self.room.remote_participants.values()
        audio = [t.sid for p in people for t in p.track_publications.values() if t.kind == rtc.TrackKind.KIND_AUDIO]
        tell("tracks", audio=len(audio), people=sorted(p.identity for p in people))

    async def publish(self):
        self.source = rtc.VideoSource(*self.size)
        self.track = rtc.LocalVideoTrack.create_video_track("camera", self.source)
        codec = {"vp8": rtc.VideoCodec.VP8, "h264": rtc.VideoCodec.H264, "vp9": rtc.VideoCodec.VP9}[self.codec]
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA, simulcast=self.simulcast, video_codec=codec
        )
        self.publication = await self.room.local_participant.publish_track(self.track, options)
        tell("published", sid=self.publication.sid)

    async def paint(self):
        while True:
            if self.source is not None:
                width, height = self.size
                picture = np.zeros((height, width, 4), np.uint8)
                picture[..., :3], picture[..., 3] = self.color, 255
                # Something moves, so that every frame has something to say.
                picture[:8, (self.sent * 4) % (width - 8) :][:, :8, :3] = 255
                frame = rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, picture.tobytes())
                self.source.capture_frame(frame)
                self.sent += 1
                if self.sent % FPS == 0:
                    tell("sent", frames=self.sent, **await self.asked())
            await asyncio.sleep(1 / FPS)

    async def asked(self):
        if self.publication is None:
            return {}
        stats = await self.track.get_stats()
        sent = [s.outbound_rtp.outbound for s in stats if s.HasField("outbound_rtp")]
        sizes = sorted([s.frame_width, s.frame_height] for s in sent if s.frames_sent > 0)
        return {"pli": sum(s.pli_count for s in sent), "nack": sum(s.nack_count for s in sent), "sizes": sizes}

    async def obey(self, words):
        match words:
            case ["color", *rgb]:
                self.color = tuple(map(int, rgb))
            case ["size", width, height]:
                self.size = (int(width), int(height))
            case ["mute"]:
                self.track.mute()
            case ["unmute"]:
                self.track.unmute()
            case ["unpublish"]:
                await self.room.local_participant.unpublish_track(self.publication.sid)
                self.publication = None
            case ["publish"]:
                await self.publish()
        tell("done", command=words[0])

    async def run(self, url, token):
        def subscribed(track, _publication, person):
            tell("subscribed", identity=person.identity, audio=track.kind == rtc.TrackKind.KIND_AUDIO)
            if track.kind == rtc.TrackKind.KIND_AUDIO:
                self.tasks.append(asyncio.create_task(self.hear(track, person.identity)))

        self.tasks = []
        # Here, since it belongs to the loop that runs.
        self.room = rtc.Room()
        self.room.on("track_subscribed", subscribed)
        for event in ["track_published", "track_unpublished", "participant_connected", "participant_disconnected"]:
            self.room.on(event, self.count_tracks)
        self.room.on("connection_state_changed", lambda state: tell("state", state=int(state)))
        await self.room.connect(url, token)
        tell("connected", room=self.room.name)
        self.count_tracks()
        self.tasks.append(asyncio.create_task(self.paint()))
        if self.codec != "none":
            await self.publish()
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).decode().split():
            if line == ["quit"]:
                break
            await self.obey(line)
        await self.room.disconnect()


if __name__ == "__main__":
    sizes = [tuple(map(int, how.split("x"))) for how in sys.argv[4:] if how != "simulcast"]
    client = Client(sys.argv[3] if len(sys.argv) > 3 else "vp8", "simulcast" in sys.argv[4:], (sizes or [(640, 360)])[0])
    asyncio.run(client.run(sys.argv[1], sys.argv[2]))
