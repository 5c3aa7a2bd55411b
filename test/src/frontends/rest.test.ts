import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { ROUTES } from "@libstorage/model";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

const HOST = { "Libstorage-Instanceid": "mock=host-a" };

interface ErrorBody {
  readonly message: string;
  readonly status: number;
  readonly error: { readonly problems?: readonly { path: string; message: string }[] };
}

describe("the REST front-end", () => {
  let server: RestServer;
  let id: string;

  before(async () => {
    server = await startRest(mocks());
    id = (await server.ask("POST", "/volumes/one", { body: { name: "first", size: 2 } })).json<{
      id: string;
    }>().id;
    await server.ask("POST", "/volumes/two", { body: { name: "elsewhere", size: 1 } });
  });
  after(() => server.close());

  describe("does not copy the reference's defects (section 21)", () => {
    it("neither query nor body replaces a path variable", async () => {
      const byQuery = await server.ask("GET", `/volumes/one/${id}?volumeID=nope&service=two`);
      assert.equal(byQuery.json<{ name: string }>().name, "first");
      const byBody = await server.ask("POST", "/volumes/one", {
        body: { name: "x", service: "two" },
      });
      assert.equal(byBody.status, 400);
    });
    it("the filters that end the reference's connection are bad filters", async () => {
      for (const filter of ["(", "(name=)"]) {
        const answer = await server.ask("GET", `/volumes/one?filter=${encodeURIComponent(filter)}`);
        assert.equal(answer.status, 400);
        assert.equal(answer.json<ErrorBody>().message, "bad filter");
      }
    });
    it("byName=false is off", async () => {
      assert.equal((await server.ask("GET", `/volumes/one/${id}?byName=false`)).status, 200);
      assert.equal((await server.ask("GET", "/volumes/one/FIRST?byName")).status, 200);
    });
    it("detaching everything names each service and answers for each", async () => {
      await server.ask("POST", `/volumes/one/${id}?attach`, { headers: HOST, body: {} });
      const answer = await server.ask("POST", "/volumes?detach", { headers: HOST, body: {} });
      assert.equal(answer.status, 205);
      assert.deepEqual(Object.keys(answer.json()), ["one", "two"]);
      const alone = { "Libstorage-Instanceid": "mock:one=host-a" };
      const failed = await server.ask("POST", "/volumes?detach", { headers: alone, body: {} });
      assert.deepEqual(failed.json<{ error: { inner: unknown } }>().error.inner, {
        msg: "missing instance ID",
        service: "slow",
      });
    });
    it("task numbers only grow", async () => {
      const numbers: number[] = [];
      for (let count = 0; count < 3; count += 1) {
        const answer = await server.ask("GET", "/volumes/one?async");
        numbers.push(answer.json<{ id: number }>().id);
      }
      assert.deepEqual(
        numbers,
        [...new Set(numbers)].toSorted((a, b) => a - b),
      );
    });
  });

  describe("routing", () => {
    it("matches decoded segments, and none with a slash inside", async () => {
      assert.equal((await server.ask("GET", "/%76olumes/%6fne")).status, 200);
      assert.equal((await server.ask("GET", `/volumes/one%2F${id}`)).status, 404);
      assert.equal((await server.ask("GET", "/volumes/%zz")).status, 404);
    });
    it("redirects a double slash to the clean path, with its query, on this host only", async () => {
      const answer = await server.ask("GET", "//volumes//one?attachments=1");
      assert.equal(answer.status, 301);
      assert.equal(answer.headers.location, "/volumes/one?attachments=1");
      assert.equal((await server.ask("GET", "//example.org/x")).headers.location, "/example.org/x");
    });
    it("refuses two actions at once", async () => {
      const answer = await server.ask("POST", `/volumes/one/${id}?attach&detach`, {
        headers: HOST,
        body: {},
      });
      assert.equal(answer.status, 400);
      assert.match(answer.json<ErrorBody>().message, /attach and detach/);
    });
    it("names its code and the server on an error", async () => {
      const answer = await server.ask("GET", "/volumes/nope");
      assert.equal(answer.headers["libstorage-errorcode"], "not-found");
      assert.equal(answer.headers["libstorage-servername"], server.app.serverName);
    });
  });

  describe("bodies", () => {
    const create = (body: string | Buffer) => server.ask("POST", "/volumes/one", { body });
    it("names every problem at once, with the member that was meant", async () => {
      const answer = await create('{"nmae":"x","size":-1.5,"iops":"many"}');
      assert.equal(answer.status, 400);
      const { problems } = answer.json<ErrorBody>().error;
      assert.deepEqual(problems?.map(({ path }) => path).toSorted(), [
        "/iops",
        "/name",
        "/nmae",
        "/size",
        "/size",
      ]);
      assert.match(answer.json<ErrorBody>().message, /did you mean "name"\?/);
    });
    it("refuses members named like an object's own", async () => {
      for (const name of ["toString", "constructor", "__proto__", "hasOwnProperty"]) {
        const answer = await create(`{"name":"x",${JSON.stringify(name)}:1}`);
        assert.equal(answer.status, 400, name);
      }
    });
    it("counts bytes, not characters, to the fault", async () => {
      const answer = await create('{"name":"zwölf",}');
      assert.equal(answer.json<{ error: { byte: number } }>().error.byte, 17);
    });
    it("refuses what is no UTF-8", async () => {
      const answer = await create(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]));
      assert.match(answer.json<ErrorBody>().message, /UTF-8/);
    });
    it("refuses deep nesting", async () => {
      const answer = await create(`{"name":"x","opts":${'{"a":'.repeat(100)}1${"}".repeat(100)}}`);
      assert.match(answer.json<ErrorBody>().message, /deeper than 64/);
      const endless = await create("[".repeat(1_000_000));
      assert.equal(endless.status, 400);
      assert.match(endless.json<ErrorBody>().message, /is not JSON/);
    });
    it("refuses sizes that no volume can have", async () => {
      for (const size of ["9223372036854775808", "1e400", "-1", "0.5", "1e300"])
        assert.equal((await create(`{"name":"x","size":${size}}`)).status, 400, size);
    });
    it("refuses names with control characters, lone surrogates, or no end", async () => {
      for (const name of ['"a\\u0000b"', '"\\ud800"', `"${"x".repeat(300)}"`])
        assert.equal((await create(`{"name":${name}}`)).status, 400, name);
    });
    it("answers 413 to a body that is announced too large, before it comes", async () => {
      const socket = server.socket();
      socket.write("POST /volumes/one HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n{");
      const [chunk] = (await once(socket, "data")) as [Buffer];
      assert.match(chunk.toString(), /^HTTP\/1\.1 413 /);
      assert.match(chunk.toString(), /Connection: close/);
      socket.destroy();
    });
    it("answers 413 to a body that grows too large, and its sender sees it", async () => {
      const body = Buffer.alloc(3 * 1024 * 1024, " ");
      const headers = { "Transfer-Encoding": "chunked" };
      const answer = await server.ask("POST", "/volumes/one", { headers, body });
      assert.equal(answer.status, 413);
      assert.equal(answer.json<ErrorBody>().status, 413);
    });
    it("nothing of all this has made a volume", async () => {
      assert.deepEqual(Object.keys((await server.ask("GET", "/volumes/one")).json()), [id]);
    });
  });

  describe("headers", () => {
    it("repeated lines are not joined", async () => {
      const headers = { "Libstorage-Instanceid": ["mock:one=a,x=1", "mock:two=b", "mock=c"] };
      const answer = await server.ask("GET", "/services?instance", { headers });
      const services = answer.json<Record<string, { instance: { instanceID: { id: string } } }>>();
      const ids = Object.values(services).map(({ instance }) => instance.instanceID.id);
      assert.deepEqual(ids, ["a", "c", "b"]);
    });
    it("UTF-8 in an instance ID arrives as such", async () => {
      const name = Buffer.from("mock=zwölf").toString("latin1");
      const headers = { "Libstorage-Instanceid": name };
      const answer = await server.ask("GET", "/services/one?instance", { headers });
      assert.match(answer.text, /"id": "zwölf"/);
    });
    it("an Idempotency-Key must be printable", async () => {
      const headers = { "Idempotency-Key": "x".repeat(256) };
      const answer = await server.ask("POST", "/volumes/one", { headers, body: { name: "k" } });
      assert.equal(answer.status, 400);
    });
    it("who is calling stands with the event", async () => {
      await server.ask("POST", `/volumes/two/vol-004?attach`, { headers: HOST, body: {} });
      const events = [...server.app.storage.operations.events.since(0)];
      assert.equal(events.at(-1)?.who, "127.0.0.1");
    });
  });

  it("describes itself as OpenAPI, every route of it", async () => {
    const answer = await server.ask("GET", "/openapi.json");
    const { paths } = answer.json<{ paths: Record<string, Record<string, unknown>> }>();
    assert.ok(paths["/volumes/{service}/{volumeID}?attach"]?.["post"]);
    assert.ok(paths["/tasks/{taskID}"]?.["delete"]);
    const described = Object.values(paths).flatMap((path) =>
      Object.values(path).map((operation) => (operation as { operationId: string }).operationId),
    );
    assert.deepEqual(described.toSorted(), Object.keys(ROUTES).toSorted());
  });

  it("is healthy and ready", async () => {
    await server.app.ready;
    assert.equal((await server.ask("GET", "/health")).json<{ status: string }>().status, "ok");
    assert.equal((await server.ask("GET", "/ready")).status, 200);
  });
});
