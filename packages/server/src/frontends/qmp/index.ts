/** The QMP front-end: QEMU's commands for block exports, over a Unix socket and over HTTP. */
export type { NbdAddress, NbdDirectory, NbdListening, ServeNbd } from "./nbd-server.js";
export { Qmp } from "./qmp.js";
export type { QmpOptions } from "./qmp.js";
export { listenForQmp } from "./socket.js";
export type { QmpSocket } from "./socket.js";
