import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { Hold } from "../../core/exporter.js";
import { NfsConfig } from "./config.js";
import { exportsText, namedIn } from "./exports-file.js";
import { ganeshaText } from "./ganesha-config.js";
import { reachOf } from "./reachability.js";
import { fsidOf, pathOf, shareOf } from "./share.js";

const config = (block: object = {}): NfsConfig => v.parse(NfsConfig, block);
const OWN = [
  { address: "172.17.0.1", cidr: "172.17.0.1/16" },
  { address: "10.1.0.1", cidr: "10.1.0.1/24" },
  { address: "fd00::1", cidr: "fd00::1/64" },
];

function wanted(...addresses: string[]) {
  const holder = { id: "b", driver: "btrfs", service: "" };
  return { holder, facts: { hostName: "b", addresses }, epoch: 1 };
}

const HOLD = {
  volume: { id: "btrfs-001", source: { kind: "directory", path: "/srv/btrfs/vol/btrfs-001" } },
  attachment: {
    instanceID: { id: "b", driver: "btrfs", service: "" },
    deviceName: "[fd00::1]:/srv/libstorage/fast/btrfs-001/3",
    epoch: 3,
    fields: { clients: "10.1.0.2,fd00::2", access: "rw", number: "7" },
  },
} as unknown as Hold;

describe("addresses of a host", () => {
  it("of a subnet of this server count, and never one that this server has, too", () => {
    // 172.17.0.1 is the address of Docker's bridge on every host that has one.
    assert.deepEqual(reachOf(config(), wanted("172.17.0.1", "10.1.0.2", "192.0.2.9"), OWN), {
      server: "10.1.0.1",
      clients: ["10.1.0.2"],
    });
    assert.throws(() => reachOf(config(), wanted("172.17.0.1"), OWN), /this server's own/);
    assert.throws(() => reachOf(config(), wanted(), OWN), /tells no address/);
  });

  it("count all when none is near, and as configured", () => {
    assert.deepEqual(reachOf(config(), wanted("192.0.2.9", "FD01:0::9"), OWN).clients, [
      "192.0.2.9",
      "fd01::9",
    ]);
    const far = config({ networks: ["192.0.2.0/24"], server: "nas.example" });
    assert.deepEqual(reachOf(far, wanted("10.1.0.2", "192.0.2.9"), OWN), {
      server: "nas.example",
      clients: ["192.0.2.9"],
    });
    assert.throws(() => reachOf(far, wanted("10.1.0.2"), OWN), /is in "nfs\.networks"/);
  });
});

describe("a hold's share", () => {
  it("has an identity of its own that outlives restarts", () => {
    assert.equal(fsidOf("fast", "btrfs-001", 3), fsidOf("fast", "btrfs-001", 3));
    const others = [
      fsidOf("fast", "btrfs-001", 4),
      fsidOf("fast", "btrfs-002", 3),
      fsidOf("slow", "btrfs-001", 3),
    ];
    assert.equal(new Set([fsidOf("fast", "btrfs-001", 3), ...others]).size, 4);
    assert.match(
      others[0] ?? "",
      /^[\da-f]{8}-[\da-f]{4}-8[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/,
    );
  });

  it("is where the record says, whatever the configuration says now", () => {
    const share = shareOf(HOLD, "fast");
    assert.equal(share.path, "/srv/libstorage/fast/btrfs-001/3");
    assert.deepEqual(share.clients, [
      { address: "10.1.0.2", isReadOnly: false },
      { address: "fd00::2", isReadOnly: false },
    ]);
    assert.equal(pathOf("/srv/libstorage/fast", "btrfs-001", 3), share.path);
    assert.throws(() => pathOf("/srv", "a b", 1), /cannot be exported/);
    assert.throws(() => pathOf("/srv", "..", 1), /cannot be exported/);
    const edited = { ...HOLD, attachment: { ...HOLD.attachment, deviceName: "nonsense" } };
    assert.throws(() => shareOf(edited, "fast"), /repair the record/);
  });

  it("stands in a file of exports(5) with its clients", () => {
    const text = exportsText([shareOf(HOLD, "fast")], () => ["rw", "mountpoint"]);
    assert.match(text, /^\/srv\S+ 10\.1\.0\.2\(rw,mountpoint\) fd00::2\(rw,mountpoint\)$/m);
    assert.deepEqual(namedIn(text), [
      "/srv/libstorage/fast/btrfs-001/3 10.1.0.2",
      "/srv/libstorage/fast/btrfs-001/3 fd00::2",
    ]);
  });

  it("stands in a configuration of nfs-ganesha", () => {
    const text = ganeshaText(config({ squash: "root" }), [shareOf(HOLD, "fast")], "/lib/recovery");
    assert.match(text, /Export_Id = 7; Path = "\/srv\/libstorage\/fast\/btrfs-001\/3"/);
    assert.match(text, /Squash = Root_Squash/);
    assert.match(text, /Clients = 10\.1\.0\.2, fd00::2; Access_Type = RW/);
    assert.match(text, /Protocols = 4;/, "NFS 3 would need a port mapper");
  });
});

describe("the exporter's keys", () => {
  it("refuse what could be taken for something else", () => {
    for (const block of [
      { folder: "/srv/with space" },
      { folder: "/srv/../etc" },
      { networks: ["10.0.0.0/33"] },
      { networks: ["everyone"] },
      { options: "hard, nolock" },
      { server: "a;b" },
      { root: "/" },
    ])
      assert.ok(!v.safeParse(NfsConfig, block).success, JSON.stringify(block));
  });
});
