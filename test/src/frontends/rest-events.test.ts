import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { after, before, describe, it } from "node:test";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

interface Event {
  readonly id: number;
  readonly event: string;
  readonly data: { readonly id: number; readonly service?: string; readonly operation: string };
}

/** Server-sent events, one by one, as they come. */
async function* eventsOf(stream: IncomingMessage): AsyncGenerator<Event> {
  let rest = "";
  for await (const chunk of stream) {
    const frames = (rest + String(chunk)).split("\n\n");
    rest = frames.pop() ?? "";
    for (const frame of frames) {
      const field = (name: string): string =>
        new RegExp(`^${name}: (.*)$`, "m").exec(frame)?.[1] ?? "";
      if (field("data") === "") continue;
      yield {
        id: Number(field("id")),
        event: field("event"),
        data: JSON.parse(field("data")) as Event["data"],
      };
    }
  }
}

async function take(stream: IncomingMessage, count: number): Promise<Event[]> {
  const taken: Event[] = [];
  for await (const event of eventsOf(stream)) {
    taken.push(event);
    if (taken.length === count) break;
  }
  stream.destroy();
  return taken;
}

describe("GET /events", { timeout: 20_000 }, () => {
  let server: RestServer;
  const create = (service: string, name: string): ReturnType<RestServer["ask"]> =>
    server.ask("POST", `/volumes/${service}`, { body: { name } });

  before(async () => {
    server = await startRest(mocks());
  });
  after(() => server.close());

  it("tells of changes as they happen", async () => {
    const stream = await server.open("/events");
    assert.equal(stream.headers["content-type"], "text/event-stream");
    const taken = take(stream, 1);
    await create("one", "live");
    const [event] = await taken;
    assert.equal(event?.event, "volumeCreate");
    assert.equal(event?.data.service, "one");
    assert.equal(event?.id, event?.data.id);
  });

  it("replays what came after Last-Event-ID, then goes on, in order and without gaps", async () => {
    const first =
      (await take(await server.open("/events", { "Last-Event-ID": "0" }), 1))[0]?.id ?? 0;
    for (let count = 0; count < 300; count += 1) await create("one", `r${count}`);
    const taken = take(await server.open("/events", { "Last-Event-ID": String(first) }), 310);
    for (let count = 0; count < 10; count += 1) await create("one", `l${count}`);
    const ids = (await taken).map(({ id }) => id);
    assert.deepEqual(
      ids,
      ids.toSorted((a, b) => a - b),
    );
    const published = [...server.app.storage.operations.events.since(first)].map(({ seq }) => seq);
    assert.deepEqual(ids, published);
  });

  it("takes the number from the query too, and none but numbers", async () => {
    const [event] = await take(await server.open("/events?lastEventID=0"), 1);
    assert.equal(event?.event, "volumeCreate");
    assert.equal((await server.ask("GET", "/events?lastEventID=x")).status, 400);
  });

  it("can be of one service", async () => {
    const taken = take(await server.open("/events?service=TWO"), 1);
    await create("one", "not this");
    await create("two", "this");
    assert.equal((await taken)[0]?.data.service, "two");
  });

  it("ends when the server stops", async () => {
    const own = await startRest(mocks());
    const stream = await own.open("/events");
    const ended = new Promise((resolve) => {
      stream.on("end", resolve).resume();
    });
    own.app.stop();
    await ended;
    await own.close();
  });
});
