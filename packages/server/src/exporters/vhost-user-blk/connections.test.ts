import assert from "node:assert/strict";
import { it } from "node:test";
import { connectionsIn } from "./connections.js";

// Recorded of a storage daemon in a network namespace of its own, and of the host from which a machine came.
const OWN = `Num       RefCount Protocol Flags    Type St Inode Path
000000004c25d223: 00000002 00000000 00010000 0001 01 9748158 /run/qsd/1/qmp.sock
00000000bfc442ae: 00000002 00000000 00010000 0001 01 9749325 /run/qsd/1/fd44d1e1.sock
`;
const HOST = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000003 00000000 00000000 0001 03 9749323 /run/qsd/1/qmp.sock
0000000000000000: 00000003 00000000 00000000 0001 03 9749334 /run/qsd/1/fd44d1e1.sock
0000000000000000: 00000003 00000000 00000000 0001 03 9749999 /run/qsd/2/fd44d1e1.sock
0000000000000000: 00000003 00000000 00000000 0001 03 9749998
`;
const PATH = "/run/qsd/1/fd44d1e1.sock";
const owned = (...inodes: string[]): Set<string> => new Set(["9748158", "9749325", ...inodes]);

it("finds who has come through a socket in the table of where they came from", () => {
  assert.deepEqual(connectionsIn([OWN, HOST], owned("9749323", "9749334"), PATH), {
    known: 1,
    foreign: 0,
  });
  assert.deepEqual(connectionsIn([OWN, HOST], owned("9749323"), PATH), { known: 0, foreign: 0 });
});

it("counts those whose table it cannot see", () => {
  assert.deepEqual(connectionsIn([OWN, HOST], owned("9749323", "4711"), PATH), {
    known: 0,
    foreign: 1,
  });
});

it("counts no connection twice where both are in one namespace", () => {
  assert.deepEqual(connectionsIn([HOST, HOST], new Set(["9749334"]), PATH), {
    known: 1,
    foreign: 0,
  });
});
