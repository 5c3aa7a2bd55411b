export * from "./client.js";
export type { ChangesReply, ContentClient, ContentStream, ContentToSend } from "./content.js";
export { isTask, waitForTask } from "./task-wait.js";
export type { EventOptions } from "./event-stream.js";
export type { TransportOptions } from "./transport.js";
