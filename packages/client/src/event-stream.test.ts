import assert from "node:assert/strict";
import { it } from "node:test";
import { StorageError } from "@libstorage/model";
import { FrameReader } from "./event-stream.js";

const TEXT =
  'retry: 1500\n\n: beat\n\nid: 4\nevent: x\ndata: {"a":\ndata: 1}\n\nid: 5\r\ndata:two\r\n\r\ndata\n\n';

it("reads frames however the text is cut", () => {
  for (let size = 1; size <= TEXT.length; size += 1) {
    const reader = new FrameReader();
    const frames = [];
    for (let at = 0; at < TEXT.length; at += size)
      frames.push(...reader.push(TEXT.slice(at, at + size)));
    assert.deepEqual(
      frames,
      [
        { id: "4", data: '{"a":\n1}' },
        { id: "5", data: "two" },
        { id: "5", data: "" },
      ],
      `in parts of ${size}`,
    );
    assert.equal(reader.retryMs, 1500);
  }
});

it("takes no line without end", () => {
  const reader = new FrameReader();
  assert.throws(() => {
    for (let at = 0; at < 20; at += 1) reader.push("x".repeat(100_000));
  }, StorageError);
});
