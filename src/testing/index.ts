/**
 * `slicelog/testing`: what tests of slicelog's users need. given/when/then over the commands, a clock that moves when told,
 * a log in memory, a log that fails on purpose, the suite that every EventLog has to pass, and real incidents, recorded from a
 * store and played in a test.
 */

export { type ContractChain, eventLogContract, readAll } from '../log/contract.ts'
export type { AppendOptions, EventLog, FollowOptions, LogHead, ReadOptions } from '../log/event-log.ts'
export { FaultLog } from '../log/fault.ts'
export { emptyStorage, MemoryEventLog, type MemoryStorage } from '../log/memory-log.ts'
export { openMemoryStore } from '../store/open.ts'
export { type ManualClock, manualClock } from './clock.ts'
export { CALM, given, recordOf, timeAt } from './given.ts'
export type { IncidentInfo } from './incident-file.ts'
export { type IncidentPlayer, type PlayOptions, playIncident, readIncident } from './player.ts'
export { type RecordedIncident, type RecordOptions, recordIncident, recordIncidentFile } from './recorder.ts'
export type { RecordedCommand, Redecided, Verdict } from './redecide.ts'
