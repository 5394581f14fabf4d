/*
 * What redislock keeps over a failover, for Spin: one line, two servers of which the
 * second replicates the first, and managers whose commands and subscriptions move to
 * it each at a moment of its own. docs/model.md says what is modelled, what is left
 * out, and what is checked. What happens on one server alone is in lock.pml.
 *
 * One step is what happens at once in reality: one script in Redis, or what a manager
 * does under its mutex.
 *
 * Options, by -D:
 *   N=2            managers, of one lock each, which is acquired once
 *   QUEUED         to begin with lock 0 is held and the others wait for it in line
 *   TTL=1          the lease, in ticks; a tick may come at any time
 *   TICKS=0        no more ticks than that; 0: no limit
 *   PLANNED=0      failovers that lose nothing: the master stops, its replica has all
 *   UNPLANNED=0    (or 1) failover to a replica that may lack the last writes
 *   TWOMASTERS     ... while the old master goes on for a while
 *   CANCELS=0      waiters that may leave
 *   LOSSES=0       requests or replies lost, after which the library tries again
 *   CUTS=0         connections of subscriptions that break
 *   DOUBTS=0       subscriptions that a manager takes for broken and gives up
 *   STRAYS=0       subscriptions that go to the other server
 *   LINGER         a connection that was given up still counts, and delivers, after
 *                  the next one was made, for any time
 *   DOUBLE         manager 1 has one to the replica to begin with
 *   MUTES=0        PUBLISH answers 0 though the channel was heard a moment before
 *   SKEW=0         the new master's clock is ahead by so many ticks. It moves what
 *                  the managers make of the time in a grant,
 *   BACKWARDS      or the first master's is,
 *   SHORTENED      and ends all leases so much earlier when the new one takes over
 *   SAMEVALUE      the last two locks have one owner value
 *   TOKENS         fencing tokens; a script counts on as long as it is no more than
 *   LAG=0          so many draws behind the server's clock
 *   OUTAGE=0       so many draws would fit between the last of the old master and
 *                  the first of the new
 *   PROMPT         probes are answered at once
 *   LIVE           every waiter is answered, as an LTL formula
 *   BREAK_...      deliberate errors
 */

#ifndef N
#define N 2
#endif
#ifndef TTL
#define TTL 1
#endif
#ifndef TICKS
#define TICKS 0
#endif
#ifndef PLANNED
#define PLANNED 0
#endif
#ifndef UNPLANNED
#define UNPLANNED 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef LOSSES
#define LOSSES 0
#endif
#ifndef CUTS
#define CUTS 0
#endif
#ifndef DOUBTS
#define DOUBTS 0
#endif
#ifndef STRAYS
#define STRAYS 0
#endif
#ifndef MUTES
#define MUTES 0
#endif
#ifndef SKEW
#define SKEW 0
#endif
#ifndef LAG
#define LAG 0
#endif
#ifndef OUTAGE
#define OUTAGE 0
#endif
#ifdef BACKWARDS
#define AHEAD	0
#else
#define AHEAD	1
#endif

/* --- the servers --- */

#define at2(i, s)	(2*(i)+(s))	/* lock i, server s */

byte key[2];		/* 0: absent; i+1: the value of lock i */
byte pttl[2];		/* ticks left of the lease */
byte sc[2*N];		/* score in the queue, 0: not in it */
byte clk;		/* the last score given out */
bit  master[2];
byte cur;		/* the master, the one promoted last if there are two */
bit  follows = 1;	/* the other one gets all that this one writes and publishes */
bit  snapped;		/* it got all up to a moment that is past, and will get no more */
bit  conn[2*N];		/* a connection listens there for the manager */

/* --- the managers: i has lock i --- */

#define IDLE	0
#define WAITING	1
#define HELD	2
#define LEAVING	3
#define GONE	4

byte st[N];
byte valid[N];		/* ticks until ValidUntil */
byte rank[N];		/* the place that was given to it, which it knows */
bit  had[N];		/* it was granted the lock */
bit  doubt[N];		/* look again when the answer is there */
byte lookAt[N];
#define SET	1	/* the timer runs */
#define DUE	2

bit  cmds[N];		/* the server that its commands go to */

byte sub[N];
#define OFF	0
#define ASKED	1
#define READY	2	/* as far as the manager knows */
bit  where[N];		/* the server where it has subscribed last */
bit  broken[N];		/* the connection is, which the manager does not know yet */
bit  heard[N];		/* the answer to a probe has said that it is, and nothing has cast doubt on that */
bit  seen[N];		/* likewise: that the lock still waits */
#if SKEW > 0
byte clockOf[N];	/* the server whose clock the manager knows, plus 1; 0: of none */
#endif

/* --- requests: one at a time for a lock --- */

#define JOIN	1
#define REL	2
#define SENT	1
#define DONE	2	/* the reply is under way */

byte op[N], ph[N], age[N];
bit  since[N];		/* sent since anything cast doubt on what is known of the server */
bit  rheld[N], rfrom[N];
byte rlease[N];

/* Probes: one at a time for a manager. */
byte pr[N];
bit  psince[N];		/* likewise; and since the subscription was acknowledged */
bit  pheard[N], pfrom[N];

/* --- grant messages: one for lock i in its connection to server s --- */

byte gp[2*N];		/* the server that published it, plus 1; FORMER: in a connection before this one */
#define FORMER	3
byte ga[2*N];		/* ticks since */

#ifdef TOKENS
byte fence[2], now;	/* now: the servers' clock; tokens are drawn less often than it goes on */
byte top;		/* the highest token that was drawn */
byte rtok[N], gtok[2*N], tok[N];
#endif

/* --- what only the checks know --- */

bit  lacked[N];		/* the new master has not got the key that the lock was given */
bit  shaken[N];		/* a connection broke or masters changed, and no answer has come since */

byte planned = PLANNED, unplanned = UNPLANNED, cancels = CANCELS, losses = LOSSES;
byte cuts = CUTS, doubts = DOUBTS, strays = STRAYS, mutes = MUTES;

/* Scratch, dead between steps. */
hidden byte q, h, hx, k, v, p, mute, dtok, turn;

#define waits(i)	(st[i] == WAITING)
#define holds(i)	(st[i] == HELD && valid[i] > 0)
#ifdef SAMEVALUE
#define value(i)	((i) == N-1 -> N-2 : (i))
#else
#define value(i)	(i)
#endif

/* --- on a server, s --- */

inline draw(s)
{
#ifdef TOKENS
	now++;
	fence[s]++;
	if :: fence[s] + LAG < now -> fence[s] = now :: else fi;
	dtok = fence[s];
	assert(dtok > top);		/* tokens rise */
	top = dtok
#else
	skip
#endif
}

inline setKey(i, s)
{
	assert(key[s] == 0);
	key[s] = i+1; pttl[s] = TTL;
	lacked[i] = (s != cur)
}

inline message(i, s, from)
{
	if
	:: conn[at2(i, s)] ->
		gp[at2(i, s)] = from+1; ga[at2(i, s)] = 0;
#ifdef TOKENS
		gtok[at2(i, s)] = dtok
#endif
	:: else
	fi
}

inline publish(i, s)
{
	if :: !mute -> message(i, s, s) :: else fi;
	if :: s == cur && follows -> message(i, 1-(s), s) :: else fi
}

inline takeOut(i, s)
{
	/* Who lives is skipped only until the first answer after the trouble. */
	assert(!waits(i) || shaken[i]);
	sc[at2(i, s)] = 0
}

/* handover.lua, called by manager c; hx: the next holder plus 1, or 0 */
inline handover(c, s)
{
	hx = 0;
#ifdef BREAK_PUBLISHFIRST	/* and see how many have got it */
	draw(s);
	do
	:: hx == 0 ->
		h = 0;
		for (q : 0 .. N-1) {
			if :: sc[at2(q, s)] > 0 && (h == 0 || sc[at2(q, s)] < sc[at2(h-1, s)]) -> h = q+1 :: else fi
		}
		if :: h == 0 -> break :: else fi;
		sc[at2(h-1, s)] = 0;
		if :: h-1 != c -> publish(h-1, s) :: else fi;
		if :: h-1 == c || conn[at2(h-1, s)] -> hx = h :: else fi
	:: else -> break
	od;
	if :: hx != 0 -> setKey(hx-1, s) :: else fi
#else
	for (q : 0 .. N-1) {		/* the first that is heard */
		if	/* "look": who is not heard here may hear it all the same, by way of a replica */
		:: sc[at2(q, s)] > 0 && q != c && !conn[at2(q, s)] && waits(q) && s == cur && follows && conn[at2(q, 1-(s))] -> lookAt[q] = DUE
		:: else
		fi;
		if
		:: sc[at2(q, s)] > 0 && (q == c || conn[at2(q, s)]) && (hx == 0 || sc[at2(q, s)] < sc[at2(hx-1, s)]) -> hx = q+1
		:: else
		fi
	}
	if
	:: hx != 0 ->
		for (q : 0 .. N-1) {
			if :: sc[at2(q, s)] > 0 && sc[at2(q, s)] < sc[at2(hx-1, s)] -> takeOut(q, s) :: else fi
		}
		sc[at2(hx-1, s)] = 0;
		setKey(hx-1, s);
		draw(s);
		if :: hx-1 != c -> publish(hx-1, s) :: else fi;
#ifdef BREAK_RETRY	/* who has counted as heard, and then as not, is passed over */
		if
		:: mute && hx-1 != c ->
			h = hx; hx = 0; key[s] = 0; pttl[s] = 0;
			for (q : 0 .. N-1) {
				if
				:: sc[at2(q, s)] > 0 && (q == c || conn[at2(q, s)]) && (hx == 0 || sc[at2(q, s)] < sc[at2(hx-1, s)]) -> hx = q+1
				:: else
				fi
			}
			mute = 0;
			if
			:: hx != 0 -> sc[at2(hx-1, s)] = 0; setKey(hx-1, s); if :: hx-1 != c -> publish(hx-1, s) :: else fi
			:: else
			fi
		:: else
		fi
#endif
	:: else				/* nobody is, and the line stays */
#ifdef BREAK_POPALL
		for (q : 0 .. N-1) {
			if :: sc[at2(q, s)] > 0 -> takeOut(q, s); assert(!waits(q)) :: else fi
		}
#endif
	fi
#endif
}

/* acquire.lua, to join, or to look */
inline execJoin(i, s)
{
	rheld[i] = 0; rlease[i] = 0;
	h = 0;
	for (q : 0 .. N-1) { if :: sc[at2(q, s)] > 0 -> h = 1 :: else fi }
	if
	:: key[s] == i+1 ->
		sc[at2(i, s)] = 0; draw(s);
		rheld[i] = 1; rlease[i] = pttl[s]
	:: key[s] == 0 && !h ->
		setKey(i, s); draw(s);
		rheld[i] = 1; rlease[i] = TTL
	:: else ->
		if :: rank[i] == 0 -> clk++; rank[i] = clk :: else fi;
		sc[at2(i, s)] = rank[i];
		if
		:: key[s] == 0 ->
			handover(i, s);
			if :: hx == i+1 -> rheld[i] = 1; rlease[i] = TTL :: else fi
		:: else
		fi
	fi;
#ifdef TOKENS
	rtok[i] = (rheld[i] -> dtok : 0)
#endif
}

inline execRelease(i, s)
{
	sc[at2(i, s)] = 0;
	if
	:: key[s] == i+1 -> key[s] = 0; pttl[s] = 0; handover(i, s)
	:: else
	fi
}

/* --- in a manager --- */

inline send(i, kind)
{
	assert(ph[i] == 0);
	op[i] = kind; ph[i] = SENT; age[i] = 0; since[i] = 1
}

inline clear(i)
{
	op[i] = 0; ph[i] = 0; age[i] = 0; since[i] = 0;
	rheld[i] = 0; rfrom[i] = 0; rlease[i] = 0;
#ifdef TOKENS
	rtok[i] = 0
#endif
}

inline cleanUp(i)
{
	st[i] = LEAVING; valid[i] = 0; doubt[i] = 0; lookAt[i] = 0;
	if
	:: ph[i] == 0 -> send(i, REL)
	:: else		/* which has to be answered first */
	fi
}

inline look(i)
{
	lookAt[i] = 0;
	if
	:: !waits(i)
	:: waits(i) && ph[i] != 0 -> doubt[i] = 1
	:: else -> doubt[i] = 0; send(i, JOIN)
	fi
}

inline granted(i, t)	/* v: validity in ticks, 0: over */
{
	if
	:: !waits(i)
	:: waits(i) && v > 0 ->
		st[i] = HELD; valid[i] = v; had[i] = 1; doubt[i] = 0; lookAt[i] = 0;
#ifdef TOKENS
		tok[i] = t;
		for (q : 0 .. N-1) { assert(q == i || tok[q] != t) }	/* no token is given to two */
#endif
	:: else -> cleanUp(i)	/* too late, which the library bears a few times */
	fi
}

#define left(lease, past)	((lease) > (past) -> (lease) - (past) : 0)
#ifdef TOKENS
#define RTOK(i) rtok[i]
#define GTOK(s) gtok[s]
#else
#define RTOK(i) 0
#define GTOK(s) 0
#endif

/* What is known of the server may be of another. */
inline distrust(i)
{
	heard[i] = 0; seen[i] = 0;
#if SKEW > 0
	clockOf[i] = 0;
#endif
#ifndef BREAK_OLDANSWERS
	since[i] = 0; psince[i] = 0
#endif
}

inline subscribeAnew(i)
{
	sub[i] = OFF; broken[i] = 0;
	distrust(i)
}

inline observe(i, s)	/* the clock of server s; k: it is not another's than before */
{
	k = 1;
#if SKEW > 0
	if
	:: clockOf[i] != 0 && clockOf[i] != s+1 -> k = 0; distrust(i)
	:: else
	fi;
	clockOf[i] = s+1
#endif
}

/* The answer to a probe arrives. */
inline probed(i)
{
	if
	:: psince[i] && sub[i] == READY ->
#ifdef BREAK_CLOCKAPART
		k = 1;
#else
		observe(i, pfrom[i]);
#endif
		if
		:: k && pheard[i] ->
			heard[i] = 1;
			if :: pfrom[i] == cur && !broken[i] -> shaken[i] = 0 :: else fi
#ifdef BREAK_DEAF
		:: k && !pheard[i] ->
			if :: pfrom[i] == cur && !broken[i] -> shaken[i] = 0 :: else fi
#else
		:: k && !pheard[i] -> subscribeAnew(i)
#endif
		:: else
		fi
	:: else
	fi;
	pr[i] = 0; psince[i] = 0; pheard[i] = 0; pfrom[i] = 0
}

/* The reply of JOIN arrives. */
inline acquired(i)
{
	if
	:: since[i] -> observe(i, rfrom[i]); seen[i] = 1
	:: else
	fi;
	k = rheld[i]; v = left(rlease[i], age[i]); turn = RTOK(i);
	clear(i);
	if
	:: k -> granted(i, turn)
	:: !k && waits(i) ->
		lookAt[i] = SET;
		if :: doubt[i] -> look(i) :: else fi
	:: else
	fi;
	if :: st[i] == LEAVING && ph[i] == 0 -> send(i, REL) :: else fi
}

inline forget(i)
{
	st[i] = GONE; clear(i)
}

inline failed(i)	/* no answer */
{
	distrust(i);
	ph[i] = SENT; age[i] = 0; since[i] = 1;
	rheld[i] = 0; rfrom[i] = 0; rlease[i] = 0;
#ifdef TOKENS
	rtok[i] = 0
#endif
}

/* By value, and at once. */
inline giveBack(i)
{
	p = cmds[i];
	if
	:: master[p] && key[p] != 0 && value(key[p]-1) == value(i) ->
		key[p] = 0; pttl[p] = 0;
		handover(i, p)
	:: else
	fi
}

#ifdef BREAK_BELIEVE
#define believed(i, s)	1
#else
#define believed(i, s)	(sub[i] == READY && where[i] == s && heard[i] && seen[i])
#endif

/* The message for lock i in its connection to server s arrives. ask: of no use. */
inline grantedElsewhere(i, s, ask)
{
	k = gp[at2(i, s)]; v = ga[at2(i, s)]; turn = GTOK(at2(i, s));
	dropMessage(i, s);
#if SKEW > 0
	if
	:: clockOf[i] == 0 -> v = TTL
	:: clockOf[i] != 0 && k != clockOf[i] && k == AHEAD+1 -> v = left(v, SKEW)
	:: clockOf[i] != 0 && k != clockOf[i] && k != AHEAD+1 -> v = v + SKEW
	:: else
	fi;
#endif
	v = left(TTL, v);
	if
	:: waits(i) ->
		if
		:: ask || k == FORMER || v == 0 || !believed(i, s) -> look(i)
		:: else -> granted(i, turn)
		fi
#if defined(BREAK_GIVEBACK)
	:: st[i] == GONE -> giveBack(i)
#elif !defined(SAMEVALUE) || defined(BREAK_REMEMBERED)	/* a caller's own value ends with its lease */
	:: st[i] == GONE && !had[i] -> giveBack(i)
#endif
	:: else
	fi
}

inline dropMessage(i, s)
{
	gp[at2(i, s)] = 0; ga[at2(i, s)] = 0;
#ifdef TOKENS
	gtok[at2(i, s)] = 0
#endif
}

inline hangUp(i, s)
{
	conn[at2(i, s)] = 0; dropMessage(i, s)
}

inline subscribe(i, s)
{
	sub[i] = ASKED; where[i] = s; conn[at2(i, s)] = 1;
	if :: gp[at2(i, s)] != 0 -> gp[at2(i, s)] = FORMER; ga[at2(i, s)] = 0 :: else fi;
#ifndef LINGER
	hangUp(i, 1-(s))
#endif
}

/* --- time and failovers --- */

inline less(t) { if :: t > 0 -> t-- :: else fi }
inline more(t) { if :: t < TTL -> t++ :: else fi }

inline time()
{
	less(pttl[0]); less(pttl[1]);
	if :: pttl[0] == 0 -> key[0] = 0 :: else fi;
	if :: pttl[1] == 0 -> key[1] = 0 :: else fi;
	for (q : 0 .. N-1) {
		less(valid[q]);
		if :: gp[2*q] != 0 && gp[2*q] != FORMER -> more(ga[2*q]) :: else fi;
		if :: gp[2*q+1] != 0 && gp[2*q+1] != FORMER -> more(ga[2*q+1]) :: else fi;
		if :: op[q] == JOIN && (ph[q] == SENT || rheld[q]) -> more(age[q]) :: else fi;
		if :: lookAt[q] == SET -> lookAt[q] = DUE :: else fi
	}
}

inline copy(s)	/* to the other one */
{
	key[1-s] = key[s]; pttl[1-s] = pttl[s];
	for (q : 0 .. N-1) { sc[at2(q, 1-s)] = sc[at2(q, s)] }
#ifdef TOKENS
	fence[1-s] = fence[s]
#endif
}

inline blank(s)	/* what a replica has makes no difference */
{
	master[s] = 0; key[s] = 0; pttl[s] = 0;
	for (q : 0 .. N-1) { sc[at2(q, s)] = 0 }
#ifdef TOKENS
	fence[s] = 0
#endif
}

inline promote()
{
	cur = 1-cur; master[cur] = 1;
	for (q : 0 .. N-1) { shaken[q] = 1 }
#ifdef TOKENS
	now = now + OUTAGE;
#endif
#ifdef SHORTENED
	if :: cur == AHEAD -> pttl[cur] = left(pttl[cur], SKEW); if :: pttl[cur] == 0 -> key[cur] = 0 :: else fi :: else fi
#endif
}

/* --- what holds after every step --- */

/* Forgets what can make no difference any more. */
inline tidy()
{
	for (q : 0 .. N-1) {
		if
		:: st[q] == GONE ->
			rank[q] = 0; shaken[q] = 0; lacked[q] = 0; doubt[q] = 0; lookAt[q] = 0;
			if
			:: had[q] || key[0] != q+1 && key[1] != q+1 && sc[2*q] == 0 && sc[2*q+1] == 0 ->
#ifndef SAMEVALUE
				hangUp(q, 0); hangUp(q, 1);
				sub[q] = OFF; where[q] = 0; broken[q] = 0; cmds[q] = 0; had[q] = 0;
				distrust(q);
				pr[q] = 0; pheard[q] = 0; pfrom[q] = 0
#endif
			:: else
			fi
		:: else
		fi;
		if :: op[q] == REL -> since[q] = 0 :: else fi;
		if :: !waits(q) -> heard[q] = 0; seen[q] = 0 :: else fi
	}
}

inline check()
{
	tidy();
	for (q : 0 .. N-1) {
		/* Exclusion: who believes holds, and for no longer than it is true. */
		assert(!holds(q) || lacked[q] || (key[cur] == q+1 && pttl[cur] >= valid[q]));
		/* A wake-up is always set or under way. */
		assert(!waits(q) || lookAt[q] != 0 || ph[q] != 0 || sub[q] != READY);
#if UNPLANNED == 0
		/* Nothing is left of who is gone. */
		assert(st[q] != GONE || (key[cur] != q+1 && sc[at2(q, cur)] == 0));
#endif
	};
	skip
}

/* --- who acts --- */

proctype User(byte i)
{
end:	do
	:: d_step { st[i] == IDLE -> printf("lock %d is called\n", i);
			st[i] = WAITING; if :: sub[i] == READY -> send(i, JOIN) :: else fi; check() }
#if CANCELS > 0
	:: d_step { waits(i) && cancels > 0 -> printf("lock %d: its context ends\n", i); cancels--; cleanUp(i); check() }
#endif
	:: d_step { st[i] == HELD -> printf("lock %d: Unlock\n", i); cleanUp(i); check() }
	od
}

proctype Wire(byte i)
{
end:	do
	:: d_step { ph[i] == SENT && master[cmds[i]] -> printf("server %d runs %d (1 join, 2 release) of lock %d\n", cmds[i], op[i], i);
			p = cmds[i]; mute = 0;
			if
			:: op[i] == JOIN -> execJoin(i, p)
			:: else -> execRelease(i, p)
			fi;
			rfrom[i] = p; ph[i] = DONE;
			if :: !rheld[i] -> age[i] = 0 :: else fi;
			check()
		}
#if MUTES > 0
	:: d_step { ph[i] == SENT && master[cmds[i]] && mutes > 0 -> printf("server %d runs %d (1 join, 2 release) of lock %d, and PUBLISH answers 0\n", cmds[i], op[i], i);
			mutes--; p = cmds[i]; mute = 1;
			if
			:: op[i] == JOIN -> execJoin(i, p)
			:: else -> execRelease(i, p)
			fi;
			mute = 0; rfrom[i] = p; ph[i] = DONE;
			if :: !rheld[i] -> age[i] = 0 :: else fi;
			check()
		}
#endif
	:: d_step { ph[i] == SENT && !master[cmds[i]] && (heard[i] || seen[i]) -> printf("lock %d: READONLY\n", i); distrust(i); since[i] = 1; check() }
	:: d_step { ph[i] == DONE && op[i] == JOIN -> printf("lock %d: the reply of server %d arrives, held %d\n", i, rfrom[i], rheld[i]); acquired(i); check() }
	:: d_step { ph[i] == DONE && op[i] == REL -> printf("lock %d: the reply of release arrives\n", i); forget(i); check() }
#if LOSSES > 0
	:: d_step { ph[i] != 0 && losses > 0 -> printf("lock %d: no answer\n", i); losses--; failed(i); check() }
#endif
	od
}

/* Asks the server that takes the writes whether it hears the manager: after a
 * subscription, after a doubt, and now and then. */
proctype Probe(byte i)
{
end:	do
#ifdef PROMPT
	:: d_step { waits(i) && sub[i] == READY && master[cmds[i]] && (!heard[i] || !conn[at2(i, cmds[i])] || shaken[i]) ->
			printf("server %d answers a probe of manager %d, heard %d\n", cmds[i], i, conn[at2(i, cmds[i])]);
			psince[i] = 1; pfrom[i] = cmds[i]; pheard[i] = conn[at2(i, cmds[i])];
			probed(i); check() }
#else
	:: d_step { pr[i] == 0 && waits(i) && sub[i] == READY -> pr[i] = SENT; psince[i] = 1; check() }
	:: d_step { pr[i] == SENT && master[cmds[i]] -> printf("server %d is probed for manager %d, heard %d\n", cmds[i], i, conn[at2(i, cmds[i])]);
			pr[i] = DONE; pfrom[i] = cmds[i]; pheard[i] = conn[at2(i, cmds[i])]; check() }
	:: d_step { pr[i] == DONE -> printf("manager %d: the answer of server %d to a probe arrives, heard %d\n", i, pfrom[i], pheard[i]); probed(i); check() }
#endif
	od
}

/* Commands follow the master, when nobody knows. */
proctype Move(byte i)
{
end:	do
	:: d_step { cmds[i] != cur && st[i] != GONE -> printf("manager %d: commands go to server %d\n", i, cur); cmds[i] = cur; check() }
	od
}

proctype Timer(byte i)
{
end:	do
	:: d_step { lookAt[i] == DUE -> printf("lock %d: looks\n", i); look(i); check() }
	od
}

proctype Events(byte i)
{
end:	do
	:: d_step { sub[i] == OFF && st[i] != GONE -> printf("manager %d: subscribes at server %d\n", i, cmds[i]);
			subscribe(i, cmds[i]); check() }
#if STRAYS > 0
	:: d_step { sub[i] == OFF && st[i] != GONE && strays > 0 -> printf("manager %d: subscribes at server %d, its commands go to %d\n", i, 1-cmds[i], cmds[i]);
			strays--; subscribe(i, 1-cmds[i]); check() }
#endif
	:: d_step { sub[i] == ASKED -> printf("manager %d: subscribed\n", i); sub[i] = READY;
			heard[i] = 0; seen[i] = 0;
#ifndef BREAK_OLDANSWERS
			since[i] = 0; psince[i] = 0;
#endif
			look(i); check() }
#if DOUBTS > 0
	:: d_step { sub[i] == READY && doubts > 0 -> printf("manager %d: gives up its subscription\n", i); doubts--; shaken[i] = 1; subscribeAnew(i); check() }
#endif
	:: d_step { broken[i] && sub[i] != OFF -> printf("manager %d: finds its subscription broken\n", i); subscribeAnew(i); check() }
	od
}

#ifdef LINGER
/* A connection that the manager has given up ends. */
proctype Former(byte i)
{
end:	do
	:: d_step { conn[at2(i, 1-where[i])] -> hangUp(i, 1-where[i]); shaken[i] = 1; check() }
	od
}
#endif

proctype Push(byte i; byte s)
{
end:	do
	:: d_step { gp[at2(i, s)] != 0 -> printf("lock %d: its grant message arrives from server %d\n", i, s); mute = 0; grantedElsewhere(i, s, 0); check() }
	:: d_step { gp[at2(i, s)] != 0 && waits(i) -> printf("lock %d: its grant message arrives from server %d, of unknown age\n", i, s); grantedElsewhere(i, s, 1); check() }
	od
}

proctype Clock()
{
#if TICKS > 0
	byte ticks = TICKS;
end:	do
	:: d_step { ticks > 0 -> ticks--; printf("tick\n"); time(); check() }
	od
#else
end:	do
	:: d_step { printf("tick\n"); time(); check() }
	od
#endif
}

proctype Failover()
{
	byte m;
	do
#if PLANNED > 0
	:: d_step { planned > 0 && follows -> printf("planned failover to server %d\n", 1-cur);
			planned--; copy(cur); promote(); blank(1-cur); check() }
#endif
#if UNPLANNED > 0
	:: d_step { unplanned > 0 && follows -> printf("what follows will not reach server %d\n", 1-cur);
			unplanned--; copy(cur); follows = 0; snapped = 1; check() }
	:: d_step { snapped -> printf("failover to server %d\n", 1-cur);
			for (q : 0 .. N-1) {
				lacked[q] = (key[cur] == q+1 && (key[1-cur] != q+1 || pttl[1-cur] < pttl[cur]))
			}
			promote(); snapped = 0;
#ifndef TWOMASTERS
			blank(1-cur);
#endif
			check() }
	:: d_step { !follows && !snapped -> printf("server %d is a replica\n", 1-cur); blank(1-cur); follows = 1; check() }
	:: d_step { !follows && !snapped -> printf("server %d dies\n", 1-cur);
			blank(1-cur);
			for (q : 0 .. N-1) {
				if :: conn[at2(q, 1-cur)] && where[q] == 1-cur && sub[q] != OFF -> broken[q] = 1 :: else fi;
				hangUp(q, 1-cur)
			}
			check() }; break
#endif
#if CUTS > 0
	:: atomic { cuts > 0 ->
		do :: m < N-1 -> m++ :: break od;
		d_step { cuts--; printf("manager %d: its subscription is cut\n", m);
			if :: sub[m] != OFF -> broken[m] = 1; shaken[m] = 1 :: else fi;
			hangUp(m, where[m]);
			m = 0; check() } }
#endif
	:: break
	od
}

init {
	byte i;
	atomic {
		master[0] = 1;
		for (i : 0 .. N-1) {
			sub[i] = READY; conn[2*i] = 1; heard[i] = 1;
#if SKEW > 0
			clockOf[i] = 1;
#endif
#ifdef DOUBLE
			conn[2*i+1] = (i == 1);
#endif
			run Probe(i); run User(i); run Wire(i); run Move(i); run Timer(i); run Events(i);
#ifdef LINGER
			run Former(i);
#endif
			run Push(i, 0); run Push(i, 1)
		}
#ifdef QUEUED
		setKey(0, 0); draw(0);
		v = TTL; st[0] = WAITING; granted(0, dtok);
		for (i : 1 .. N-1) { st[i] = WAITING; rank[i] = i; sc[2*i] = i; lookAt[i] = SET; seen[i] = 1 }
		clk = N-1;
#endif
		run Clock();
		run Failover();
		i = 0
	}
}

#ifdef LIVE
#if N == 2
#define someoneWaits	(waits(0) || waits(1))
#else
#define someoneWaits	(waits(0) || waits(1) || waits(2))
#endif
/* A lock waits once and without a break, so this says that none waits forever. */
ltl live { <>[] !someoneWaits }
#endif
