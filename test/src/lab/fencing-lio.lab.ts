import { fencingSuite } from "./fencing.js";

fencingSuite("iscsi-lio");
