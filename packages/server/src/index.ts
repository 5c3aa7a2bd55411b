export * from "./core/driver.js";
export * from "./core/exec.js";
export * from "./core/faults.js";
export * from "./core/files.js";
export * from "./core/log.js";
export * from "./drivers/index.js";
