/** Streams of the SnapshotMetadata service whose callers go away, or do not read. */
import assert from "node:assert/strict";
import { connect, constants } from "node:http2";
import { connect as connectSocket } from "node:net";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { SnapshotBlocks } from "@libstorage/client/csi";
import type { TestPlugin } from "./csi-client.js";
import { withPlugin } from "./own-plugin.js";

/** Blocks without end, and what has become of those who asked for them. */
function endless(): { readonly blocks: SnapshotBlocks; given: number; ended: number } {
  const state = { given: 0, ended: 0 };
  async function* all(): AsyncGenerator<{ offset: number; length: number }> {
    try {
      for (; ; state.given += 1) yield { offset: state.given * 8192, length: 4096 };
    } finally {
      state.ended += 1;
    }
  }
  const map = { volumeBytes: 1e15, extents: { [Symbol.asyncIterator]: all } };
  const blocks = { allocated: async () => map, changed: async () => map };
  return Object.assign(state, { blocks });
}

/** `snapshot_id` is "s", in a message of gRPC: not compressed, and its length. */
const REQUEST = Buffer.from([0, 0, 0, 0, 3, 0x0a, 1, 0x73]);

/** A call of which nothing is read. grpc-js alone would take what comes and keep it. */
function unread({ socket }: TestPlugin): { cancel(): void; close(): void } {
  const session = connect("http://localhost", {
    createConnection: () => connectSocket(socket),
  });
  const call = session.request({
    ":method": "POST",
    ":path": "/csi.v1.SnapshotMetadata/GetMetadataAllocated",
    "content-type": "application/grpc",
    te: "trailers",
  });
  call.on("error", () => {});
  call.end(REQUEST);
  return { cancel: () => call.close(constants.NGHTTP2_CANCEL), close: () => session.destroy() };
}

async function until(isSo: () => boolean, what: string): Promise<void> {
  for (let time = 0; time < 100 && !isSo(); time += 1) await sleep(50);
  assert.ok(isSo(), what);
}

/** Until nothing more is asked for: the caller's door is full. */
async function full(state: { readonly given: number }): Promise<void> {
  let before = -1;
  for (let time = 0; time < 100 && (state.given === 0 || state.given !== before); time += 1) {
    before = state.given;
    await sleep(300);
  }
  assert.equal(state.given, before, "it waits for its reader");
}

const settings = { "csi.hide": "none" };
const lineOf = ({ log }: TestPlugin): Record<string, unknown> | undefined =>
  log.find(({ call }) => call === "GetMetadataAllocated");

describe("a stream of the CSI plugin", () => {
  it("ends when its caller, who does not read, cancels it", async () => {
    const state = endless();
    await withPlugin({ blocks: state.blocks, settings }, async (plugin) => {
      const call = unread(plugin);
      await full(state);
      assert.equal(state.ended, 0);
      call.cancel();
      await until(() => state.ended === 1, "what makes it is ended");
      await until(() => lineOf(plugin) !== undefined, "it is in the log");
      call.close();
    });
  });

  it("ends when its caller does not read for too long", async () => {
    const state = endless();
    const short = { ...settings, "csi.readTimeout": "1500ms" };
    await withPlugin({ blocks: state.blocks, settings: short }, async (plugin) => {
      const call = unread(plugin);
      await until(() => state.ended === 1, "what makes it is ended");
      await until(() => lineOf(plugin) !== undefined, "it is in the log");
      assert.equal(lineOf(plugin)?.["code"], "DEADLINE_EXCEEDED");
      assert.match(String(lineOf(plugin)?.["error"]), /no progress for 1.5 s/);
      call.close();
      await plugin.call("Probe");
    });
  });
});
