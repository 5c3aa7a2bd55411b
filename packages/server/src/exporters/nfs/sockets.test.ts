import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseConnections } from "./sockets.js";

const V4 = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:5621 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2922760 1
   1: 0100007F:5621 02004D0A:03BF 01 00000000:00000000 00:00000000 00000000     0        0 2922761 1
   2: 0100007F:5621 03004D0A:03BF 06 00000000:00000000 00:00000000 00000000     0        0 0 3
`;
const V6 = `  sl  local_address remote_address st
   0: 0000000000000000FFFF00000100004D:0801 0000000000000000FFFF000002004D0A:03C0 01 0
   1: 000000FD000000000000000001000000:0801 000000FD000000000000000002000000:03C1 01 0
`;

describe("the kernel's table of connections", () => {
  it("gives port and other end", () => {
    assert.deepEqual(parseConnections(V4), [
      { port: 22049, peer: "0.0.0.0", state: "listening" },
      { port: 22049, peer: "10.77.0.2", state: "established" },
    ]);
    assert.deepEqual(
      parseConnections(V6).map(({ port, peer }) => [port, peer]),
      [
        [2049, "10.77.0.2"],
        [2049, "fd00::2"],
      ],
    );
  });
});
