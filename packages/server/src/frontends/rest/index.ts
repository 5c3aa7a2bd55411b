export { createRest } from "./app.js";
export { openAuth } from "./auth.js";
export type { Auth, AuthRules, Caller } from "./auth.js";
export type { AccessLog, EventFeed, HttpLimits, RestParts } from "./parts.js";
export { DEFAULT_LIMITS } from "./parts.js";
export { inventServerName } from "./server-name.js";
export { isSecretName, redactConfig } from "./redact.js";
