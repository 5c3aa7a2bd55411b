import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

type VolumeMap = Record<string, { name: string }>;

describe("lists over REST", () => {
  let server: RestServer;
  const names = (map: VolumeMap): string[] => Object.values(map).map(({ name }) => name);
  const filtered = async (filter: string): Promise<string[]> => {
    const answer = await server.ask("GET", `/volumes/one?filter=${encodeURIComponent(filter)}`);
    assert.equal(answer.status, 200, answer.text);
    return names(answer.json<VolumeMap>());
  };

  before(async () => {
    server = await startRest(mocks());
    for (let count = 1; count <= 10; count += 1)
      await server.ask("POST", "/volumes/one", {
        body: { name: `v${count}`, size: count, opts: { owner: count % 2 ? "Ann" : "bob" } },
      });
    await server.ask("POST", "/volumes/two", { body: { name: "w1", size: 1 } });
  });
  after(() => server.close());

  describe("pages", () => {
    it("follow each other through the Link header, each volume once", async () => {
      const seen: string[] = [];
      let path: string | undefined = "/volumes/one?limit=4";
      while (path !== undefined) {
        const answer = await server.ask("GET", path);
        seen.push(...names(answer.json<VolumeMap>()));
        path = /^<([^>]+)>; rel="next"$/.exec(String(answer.headers["link"] ?? ""))?.[1];
      }
      assert.deepEqual(seen, ["v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10"]);
    });
    it("go over all services too", async () => {
      const seen: string[] = [];
      let path: string | undefined = "/volumes?limit=4";
      while (path !== undefined) {
        const answer = await server.ask("GET", path);
        for (const map of Object.values(answer.json<Record<string, VolumeMap>>()))
          seen.push(...names(map));
        path = /^<([^>]+)>/.exec(String(answer.headers["link"] ?? ""))?.[1];
      }
      assert.equal(seen.length, 11);
      assert.equal(new Set(seen).size, 11);
    });
    it("keep the order of services whose names begin alike", async () => {
      const own = await startRest(
        "libstorage: {server: {services: {a: {driver: mock}, a-b: {driver: mock}}}}",
      );
      const after = encodeURIComponent("a/vol-001");
      const all = (await own.ask("GET", `/volumes?limit=9&after=${after}`)).json<
        Record<string, object>
      >();
      await own.close();
      assert.deepEqual(
        Object.values(all).map((map) => Object.keys(map).length),
        [1, 3],
      );
    });
    it("need a limit above zero", async () => {
      for (const limit of ["0", "-1", "x", "1.5"])
        assert.equal((await server.ask("GET", `/volumes/one?limit=${limit}`)).status, 400, limit);
    });
  });

  describe("filters", () => {
    it("compare numbers as numbers", async () => {
      assert.deepEqual(await filtered("(size>=9)"), ["v9", "v10"]);
      assert.deepEqual(await filtered("(&(size>=2)(size<=3))"), ["v2", "v3"]);
    });
    it("know fields, parts of texts, not and or", async () => {
      assert.deepEqual(await filtered("(&(fields.owner=ANN)(!(name=v1)))"), [
        "v3",
        "v5",
        "v7",
        "v9",
      ]);
      assert.deepEqual(await filtered("(|(name=*0)(name=v2))"), ["v2", "v10"]);
      assert.deepEqual(await filtered("(name~=V-7)"), ["v7"]);
    });
    it("see the attachment state that the list shows", async () => {
      const headers = { "Libstorage-Instanceid": "mock=host-a" };
      await server.ask("POST", "/volumes/one/vol-005?attach", { headers, body: {} });
      const filter = encodeURIComponent("(attachmentState=2)");
      const answer = await server.ask("GET", `/volumes/one?attachments=1&filter=${filter}`, {
        headers,
      });
      assert.deepEqual(names(answer.json<VolumeMap>()), ["v2"]);
      await server.ask("POST", "/volumes/one/vol-005?detach", { headers, body: {} });
    });
    it("are decoded once more, as the contract has it", async () => {
      const twice = encodeURIComponent(encodeURIComponent("(name=v3)"));
      const answer = await server.ask("GET", `/volumes/one?filter=${twice}`);
      assert.deepEqual(names(answer.json<VolumeMap>()), ["v3"]);
    });
  });

  describe("tags and compression", () => {
    it("answer 304 to who has it already, until something changes", async () => {
      const first = await server.ask("GET", "/volumes/two");
      const headers = { "If-None-Match": `"other", ${first.headers.etag}` };
      const second = await server.ask("GET", "/volumes/two", { headers });
      assert.equal(second.status, 304);
      assert.equal(second.text, "");
      await server.ask("POST", "/volumes/two", { body: { name: "w2" } });
      assert.equal((await server.ask("GET", "/volumes/two", { headers })).status, 200);
    });
    it("compress what is long for who asks", async () => {
      const plain = await server.ask("GET", "/volumes/one");
      const headers = { "Accept-Encoding": "br, gzip;q=0.5" };
      const zipped = await server.ask("GET", "/volumes/one", { headers });
      assert.equal(zipped.headers["content-encoding"], "gzip");
      assert.equal(gunzipSync(zipped.bytes).toString("utf8"), plain.text);
      assert.equal(zipped.headers.etag, plain.headers.etag);
    });
    it("leave alone what is short, or not wanted", async () => {
      const headers = { "Accept-Encoding": "gzip;q=0" };
      const unwanted = await server.ask("GET", "/volumes/one", { headers });
      assert.equal(unwanted.headers["content-encoding"], undefined);
      const short = await server.ask("GET", "/volumes/two/vol-004", {
        headers: { "Accept-Encoding": "gzip" },
      });
      assert.equal(short.headers["content-encoding"], undefined);
    });
  });

  describe("the early model", () => {
    it("names volumes as the first published model did", async () => {
      const answer = await server.ask("GET", "/volumes/one/vol-004?model=early");
      assert.deepEqual(answer.json(), {
        attachments: [],
        availabilityZone: "",
        iops: 0,
        name: "v1",
        networkName: "",
        size: "1",
        status: "",
        volumeID: "vol-004",
        volumeType: "",
      });
    });
    it("holds for lists and services, and has a tag of its own", async () => {
      const early = await server.ask("GET", "/volumes?model=early");
      const all = early.json<Record<string, Record<string, { volumeID: string }>>>();
      assert.equal(all["one"]?.["vol-004"]?.volumeID, "vol-004");
      assert.notEqual(early.headers.etag, (await server.ask("GET", "/volumes")).headers.etag);
      const headers = { "Libstorage-Instanceid": "mock=h" };
      const service = await server.ask("GET", "/services/one?instance&model=early", { headers });
      assert.deepEqual(
        Object.keys(service.json<{ instance: { instanceID: object } }>().instance.instanceID),
        ["id", "metadata"],
      );
    });
    it("is the only other one, and for reads that have it", async () => {
      assert.equal((await server.ask("GET", "/volumes?model=late")).status, 400);
      assert.equal((await server.ask("GET", "/tasks?model=early")).status, 400);
    });
  });

  it("refresh lists anew", async () => {
    assert.equal((await server.ask("GET", "/volumes/one?refresh")).status, 200);
  });
});
