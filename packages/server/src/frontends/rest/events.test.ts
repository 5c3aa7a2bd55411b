import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import type { StorageEvent } from "@libstorage/model";
import { lastEventID, streamEvents } from "./events.js";
import type { EventFeed } from "./parts.js";

/** A feed of as many events as one likes. */
class Feed implements EventFeed {
  readonly #events: StorageEvent[] = [];
  readonly listeners = new Set<(event: StorageEvent) => void>();

  get lastID(): number {
    return this.#events.at(-1)?.id ?? 0;
  }
  since(id: number): Iterable<StorageEvent> {
    return this.#events.filter((event) => event.id > id);
  }
  subscribe(listener: (event: StorageEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
  publish(who: string): void {
    const event = { id: this.lastID + 1, time: 0, phase: "end", operation: "volumeCreate", who };
    this.#events.push(event);
    for (const listener of this.listeners) listener(event);
  }
}

describe("streamEvents", { timeout: 10_000 }, () => {
  it("cuts off a reader that does not keep up", async () => {
    const feed = new Feed();
    const server = createServer((_req, res) => {
      res.writeHead(200);
      void streamEvents(res, { feed, after: undefined, service: undefined, stopping: undefined });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(socket, "data");
    socket.pause();
    const long = "x".repeat(10_000);
    // More than the kernel's buffers hold.
    for (let count = 0; count < 3_000 && feed.listeners.size > 0; count += 1) {
      feed.publish(long);
      if (count % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    while (feed.listeners.size > 0) await new Promise((resolve) => setImmediate(resolve));
    socket.destroy();
    server.close();
  });

  it("sends a sign of life while nothing happens", async () => {
    const feed = new Feed();
    const server = createServer((_req, res) => {
      const stream = { feed, after: undefined, service: undefined, stopping: undefined };
      void streamEvents(res, { ...stream, heartbeatMs: 10 });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let text = "";
    for await (const chunk of socket) {
      text += String(chunk);
      if (/^: $/m.test(text)) break;
    }
    server.close();
  });

  it("takes the number from the header before the query", () => {
    assert.equal(lastEventID("3", "5"), 3);
    assert.equal(lastEventID(undefined, "5"), 5);
    assert.equal(lastEventID(undefined, undefined), undefined);
    assert.throws(() => lastEventID("-1", undefined), { code: "invalid-argument" });
  });
});
