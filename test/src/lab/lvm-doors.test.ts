import { wrapSuite } from "./wrap.js";

wrapSuite(import.meta.url, { isLong: true });
