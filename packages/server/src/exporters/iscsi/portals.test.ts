import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { formatPortal, listeningPortals, parsePortal, portalsFor } from "./portals.js";
import type { Portal } from "./portals.js";

const OWN = [
  { address: "127.0.0.1", network: "127.0.0.1/8", isInternal: true },
  { address: "10.1.0.1", network: "10.1.0.1/24", isInternal: false },
  { address: "192.168.7.5", network: "192.168.7.5/24", isInternal: false },
  { address: "fd00::1", network: "fd00::1/64", isInternal: false },
];

const portal = (text: string): Portal => parsePortal(text) ?? assert.fail(text);
const texts = (portals: readonly Portal[]): string[] => portals.map(formatPortal);

describe("portals", () => {
  it("are addresses with a port", () => {
    for (const [text, is] of [
      ["10.0.0.1", "10.0.0.1:3260"],
      ["10.0.0.1:860", "10.0.0.1:860"],
      ["[fd00::1]:3261", "[fd00::1]:3261"],
      ["[FD00:0:0::1]", "[fd00::1]:3260"],
      ["0.0.0.0:3260", "0.0.0.0:3260"],
      ["[::]:3260", "[::]:3260"],
    ] as const)
      assert.equal(formatPortal(portal(text)), is);
    for (const bad of [
      "",
      "host:3260",
      "fd00::1",
      "10.0.0.1:0",
      "10.0.0.1:70000",
      "[10.0.0.1]",
      "10.0.0",
      "[fe80::1%eth0]:3260",
      "10.0.0.1:3260,1",
    ])
      assert.equal(parsePortal(bad), undefined, bad);
  });

  it("that this host does not have are refused, not bound", () => {
    assert.throws(
      () => listeningPortals([portal("10.9.9.9")], OWN),
      /10\.9\.9\.9:3260 cannot be used: this host has no address 10\.9\.9\.9; it has 127\.0\.0\.1, 10\.1\.0\.1/,
    );
    assert.deepEqual(texts(listeningPortals([portal("[fd00::1]")], OWN)), ["[fd00::1]:3260"]);
  });

  it("are every address that others can reach, when none is named", () => {
    assert.deepEqual(texts(listeningPortals([], OWN)), [
      "10.1.0.1:3260",
      "192.168.7.5:3260",
      "[fd00::1]:3260",
    ]);
    assert.throws(() => listeningPortals([], OWN.slice(0, 1)), /bring a network up/);
  });

  it("a holder is told those of a network of its own", () => {
    assert.deepEqual(texts(portalsFor([], ["10.1.0.9"], OWN)), ["10.1.0.1:3260"]);
    assert.deepEqual(texts(portalsFor([], ["10.1.0.9", "fd00::9"], OWN)), [
      "10.1.0.1:3260",
      "[fd00::1]:3260",
    ]);
    assert.equal(portalsFor([], ["172.16.0.1"], OWN).length, 3, "all, when there is none");
    assert.deepEqual(
      texts(portalsFor([portal("192.168.7.5")], ["10.1.0.9"], OWN)),
      ["192.168.7.5:3260"],
      "what is configured counts",
    );
    assert.deepEqual(
      texts(portalsFor([portal("0.0.0.0:3333")], ["10.1.0.9"], OWN)),
      ["10.1.0.1:3333"],
      "a wildcard is no address to go to",
    );
  });
});
