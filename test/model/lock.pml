/*
 * The protocol of redislock, for Spin. docs/model.md says what is modelled, what
 * is left out, and which property stands for which guarantee.
 *
 * Redis, the network and the library are steps on shared state. One step is what
 * happens at once in reality: one command or script in Redis, or what a manager
 * does under its mutex. Inlines carry the names of the Go functions and scripts
 * that they mirror (lock.go, queue.go, answer.go, keyspace.go, lua).
 *
 * Options, by -D:
 *   N=3            locks (one acquisition each)
 *   SAME           locks 0 and 1 are of one manager; else each has its own
 *   TTL=2          the lease, in ticks; a tick may come at any time
 *   LOSSES=1       requests or replies lost, after which the library retries
 *   GHOSTS=0       requests that arrive after the library gave up on them
 *   CUTS=0         cuts of a subscription
 *   CRASHES=0      managers that die
 *   FLUSHES=0      times that Redis loses everything
 *   QUEUELOSS=0    times that Redis loses the queue alone
 *   CANCELS=N      waiters that may leave
 *   TICKS=0        no more ticks than that; 0: no limit
 *   EARLYLOOKS     timers may fire at once, as if a short lease were in the line
 *   SUBSCRIBED     all managers listen from the start
 *   NOGRANTS       no grant message ever arrives
 *   RENEW          holders extend their lease
 *   FOREIGN        a program with plain SET NX and an owner-checked delete
 *   TOKENS         fencing tokens
 *   OTHERKEY       claims of another key, which share the fence and may begin it
 *   BETWEEN=0      where FLUSHALL may come within a claim: 1: before it sets the
 *                  key, 2: also between that and its token
 *   LIVE           G5, as an LTL formula
 *   BREAK_...      deliberate errors
 */

#ifndef N
#define N 3
#endif
#ifndef TTL
#define TTL 2
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef GHOSTS
#define GHOSTS 0
#endif
#ifndef CUTS
#define CUTS 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef FLUSHES
#define FLUSHES 0
#endif
#ifndef QUEUELOSS
#define QUEUELOSS 0
#endif
#ifndef CANCELS
#define CANCELS N
#endif
#ifndef TICKS
#define TICKS 0
#endif
#ifndef BETWEEN
#define BETWEEN 0
#endif
#ifndef LATE
#define LATE 1
#endif
/* ^ grants that come too late before a lock fails; the library has 4 */

#ifdef SAME
#define M	(N-1)
#define mgr(i)	((i) == 0 -> 0 : (i)-1)
#else
#define M	N
#define mgr(i)	(i)
#endif

/* --- Redis --- */

byte key;		/* 0: absent; i+1: the value of lock i; FOREIGNER */
byte pttl;		/* ticks left of the lease */
byte sc[N];		/* score in the queue, 0: not in it */
byte clk;		/* the last score given out */
bit  slip;		/* the key went without a release: a newcomer may slip in */
bit  rsub[M];		/* a working connection listens for the manager */
bit  zombie[M];		/* a dead one still counts as a receiver */

#define FOREIGNER	(N+1)
#define receivers(m)	(rsub[m] || zombie[m])

/* --- the library: locks, as in lock.go --- */

#define IDLE	0
#define WAITING	1
#define HELD	2
#define LOST	3
#define LEAVING	4
#define GONE	5
#define CRASHED	6

byte st[N];
byte valid[N];		/* ticks until ValidUntil */
bit  unsent[N], traced[N], joined[N], doubt[N];
byte lscore[N];		/* the score as the library knows it */
byte stale[N];
byte rank[N];		/* for G2: the place that is due to it */

/* --- the library: lines and the subscription, as in queue.go, keyspace.go --- */

#define OFF		0
#define SUBSCRIBING	1	/* sent */
#define CONFIRMING	2	/* done by Redis, confirmation under way */
#define READY		3
#define CUT		4	/* broken, which nobody here knows yet */

byte sub[M];
byte lookAt[M];
#ifdef EARLYLOOKS
#define SET	2
#else
#define SET	1	/* the timer runs: not before a lease has ended, that is after a tick */
#endif
#define DUE	2
bit  lookAgain[M], contended[M];
bit  dead[M];
#define ready(m)	(sub[m] == READY || sub[m] == CUT)

/* --- the network: requests. Slot i is of lock i. Then a slot for a request that
 * the library has given up on, if there are such. Slot BACK+i gives back a grant
 * to lock i, which does not wait any more. --- */

#define LATEST	N
#define owner(s)	((s) < N -> (s) : ((s) < BACK -> 0 : (s)-BACK))
#if GHOSTS > 0
#define BACK	(N+1)
#else
#define BACK	N
#endif
#define SLOTS	(BACK+N)

#define NONE	0
#define CLAIM	1	/* raise.lua if need be, SET NX PX and INCR */
#define TRY	2	/* acquire.lua, try */
#define JOIN	3	/* acquire.lua, join */
#define REL	4	/* release.lua */

#define SENT	1
#define DONE	2	/* the reply is under way */
#define HALF	3	/* of CLAIM: SET was run, the token is still to be drawn */
#define RAISED	4	/* of CLAIM: the fence was raised, SET is still to be run */

byte op[SLOTS], ph[SLOTS];
byte age[SLOTS];	/* ticks since it was sent */
bit  ounc[SLOTS];	/* of REL: uncertain */
bit  olook[N], orejoin[N];
/* replies */
bit  rheld[BACK], ralone[BACK], radded[BACK];
bit  rfreed[SLOTS];
byte rlease[BACK], rholder[BACK];
byte rx[SLOTS];		/* i+1: lock i was made the holder: `turn`, `handed` */

/* Grant messages: two for each lock, the older one first. */
byte gp[2*N];
byte ga[2*N];		/* ticks since */

/* asOf compares the server's time of a grant with that of a later join that saw
 * the lock waiting. Only the order matters, so a grant under way is: */
#define FRESH	1
#define OLDER	2	/* than the join whose reply is under way */
#define PAST	3	/* older than asOf */
byte rmark[SLOTS];	/* of rx of a release */

byte losses = LOSSES;
byte cancels = CANCELS;
bit  disturbed;		/* a subscription was cut, or Redis lost something */
bit  flushed;		/* G1 and G6 are not promised after this */

#ifdef RENEW
byte eph[N], eage[N], elease[N];
bit  elate[N];		/* an extension that the library gave up on */
#endif
#if GHOSTS > 0
byte lateof;		/* the lock, plus 1, that the late request is of */
bit  latejoined;
byte latescore;
byte lates = GHOSTS;
#endif
#ifdef FOREIGN
byte fvalid, fdone;
#endif
#ifdef TOKENS
byte fence = 10, epoch;
byte now = 10;		/* the server's clock */
byte known[M];		/* by manager: the fence was above it. Manager 0 has been at work. */
byte floor[SLOTS];	/* of CLAIM: the fence is known to be above it as the token is drawn */
byte rtok[SLOTS], repo[SLOTS], gtok[2*N], gepo[2*N];
byte tok[N], tepo[N];	/* accepted */
hidden byte dtok;
#endif

/* Scratch, dead between steps. */
hidden byte q, h, hx, x, y, z, c, f, v, k, w;
hidden byte hown, again, rl;

/* --- names of a few conditions --- */

#ifdef SAME
#define mayStart(i)	((i) != 1 || st[0] != IDLE)	/* the order of the calls */
#else
#define mayStart(i)	1
#endif
#define acq(i)		(ph[i] != 0 && op[i] != REL)
#define inFlight(i)	acq(i)
#define releasing(i)	(ph[i] != 0 && op[i] == REL)
#define waits(i)	(st[i] == WAITING)
#define ticket(i)	(st[i] == WAITING || st[i] == HELD || st[i] == LEAVING)
#define holds(i)	(st[i] == HELD && valid[i] > 0)

/* --- Redis: tokens --- */

inline draw()
{
#ifdef TOKENS
	now++;	/* tokens are drawn less often than the clock ticks */
	fence++;
#ifndef BREAK_INCR
	if :: fence < now -> fence = now :: else fi;	/* the 10 ms that it may be behind are less than a tick */
#endif
	dtok = fence
#else
	skip
#endif
}

/* raise.lua, before the claim in slot s */
inline raise(s)
{
#ifdef BREAK_CLIENTCLOCK	/* to what the manager knew of the clock, and not where there is no fence */
	if :: fence != 0 && fence < floor[s] -> fence = floor[s] :: else fi
#else
	draw();
	if :: floor[s] < now -> floor[s] = now :: else fi
#endif
}

/* --- Redis: the key --- */

inline setKey(i)
{
	assert(key == 0);			/* G8 */
	key = i+1; pttl = TTL; slip = 0;
#ifdef TOKENS
	epoch++
#endif
}

inline delKey(i)
{
	assert(key == i+1);			/* G8: only the owner's own */
	key = 0; pttl = 0
}

inline first()	/* h: the head of the queue, plus 1 */
{
	h = 0;
	for (q : 0 .. N-1) {
		if
		:: sc[q] > 0 && (h == 0 || sc[q] < sc[h-1]) -> h = q+1
		:: else
		fi
	}
}

inline shift(i)	/* the oldest message for lock i goes */
{
	gp[2*(i)] = gp[2*(i)+1]; ga[2*(i)] = ga[2*(i)+1];
	gp[2*(i)+1] = 0; ga[2*(i)+1] = 0;
#ifdef TOKENS
	gtok[2*(i)] = gtok[2*(i)+1]; gepo[2*(i)] = gepo[2*(i)+1];
	gtok[2*(i)+1] = 0; gepo[2*(i)+1] = 0;
#endif
}

inline publish(i)
{
#ifndef NOGRANTS
	if
	:: rsub[mgr(i)] ->
		if
		:: gp[2*(i)] != 0 && gp[2*(i)+1] != 0 -> shift(i)	/* a bound of the model */
		:: else
		fi;
		k = (gp[2*(i)] == 0 -> 2*(i) : 2*(i)+1);
		gp[k] = FRESH; ga[k] = 0;
#ifdef TOKENS
		gtok[k] = dtok; gepo[k] = epoch
#endif
	:: else
	fi
#else
	skip
#endif
}

/* handover.lua, for manager s: hx is the next holder plus 1, or 0. Who is heard is
 * asked before anything is written. If nobody is, the line stays as it is. */
inline handover(s)
{
	hx = 0; hown = 0;
	for (q : 0 .. N-1) {		/* the first who is heard */
		if
		:: sc[q] > 0 && (mgr(q) == s || receivers(mgr(q))) && (hx == 0 || sc[q] < sc[hx-1]) -> hx = q+1
		:: else
		fi
	}
#ifdef BREAK_DEADHEAD
	first();
	if :: hx != h -> hx = 0 :: else fi;
#endif
	for (q : 0 .. N-1) {
		if
		:: sc[q] > 0 && (hx == 0 || sc[q] < sc[hx-1]) ->
#ifndef BREAK_DEADHEAD
			assert(disturbed || dead[mgr(q)]);	/* G3, G4: the living keep their place, and get the key */
#endif
			if :: hx != 0 -> sc[q] = 0 :: else fi
		:: else
		fi
	}
	if
	:: hx != 0 ->
		hown = (mgr(hx-1) == s);
		sc[hx-1] = 0;
		for (q : 0 .. N-1) {
			assert(sc[q] == 0 || rank[q] == 0 || rank[q] > rank[hx-1]);	/* G2 */
		}
		setKey(hx-1);
		draw();
		if
		:: !hown -> publish(hx-1)
		:: else
		fi
	:: else ->
		first();
		if :: h != 0 -> slip = 1 :: else fi	/* whoever comes first may have the key */
	fi
}

/* acquire.lua, in slot s for lock i; j: join; score: of an earlier join, or 0 */
inline execAcquire(s, i, j, score)
{
	rx[s] = 0; ralone[s] = 0; radded[s] = 0; rheld[s] = 0; rholder[s] = 0;
	first();
	if
	:: key == i+1 ->
		sc[i] = 0; draw();
		rheld[s] = 1; rlease[s] = pttl
	:: key == 0 && h == 0 ->
		setKey(i); draw();
		rheld[s] = 1; rlease[s] = TTL; ralone[s] = 1
	:: else ->
		if
		:: j && sc[i] == 0 ->
			radded[s] = 1;
			if
#ifndef BREAK_NEWSCORE
			:: score != 0 -> sc[i] = score
#endif
			:: else ->
				clk++; sc[i] = clk;
				if :: score == 0 -> rank[i] = clk :: else fi
			fi
		:: else
		fi;
		if
		:: key == 0 ->
			handover(mgr(i));
			if
			:: hx == 0 ->
#ifdef BREAK_DEADHEAD
				if
				:: h != 0 -> skip
				:: else -> setKey(i); draw(); rheld[s] = 1; rlease[s] = TTL; ralone[s] = 1
				fi
#else
				setKey(i); draw();
				rheld[s] = 1; rlease[s] = TTL; ralone[s] = 1
#endif
			:: hx == i+1 -> rheld[s] = 1; rlease[s] = TTL
			:: else -> rx[s] = (hown -> hx : 0)
			fi
		:: else
		fi;
		if
		:: !rheld[s] ->
			rholder[s] = (s == i && olook[i] -> key : 0);
			if :: j && s == i -> marks(i, FRESH, OLDER) :: else fi
		:: else
		fi
	fi;
#ifdef TOKENS
	rtok[s] = dtok; repo[s] = epoch
#endif
}

/* release.lua: slot s releases the value of lock i; member: it leaves the queue */
inline execRelease(s, i, member)
{
	rx[s] = 0; rfreed[s] = 0; rmark[s] = 0;
	if :: member -> sc[i] = 0 :: else fi;
	if
#ifdef BREAK_DROPGRANT
	:: member	/* a waiter only leaves the line */
	:: !member && key == i+1 ->
#elif defined(BREAK_NOOWNER)
	:: key != 0 ->
#else
	:: key == i+1 ->
#endif
		delKey(i);
		handover(mgr(i));
		if
		:: hx == 0 -> rfreed[s] = 1
		:: hx != 0 && hown ->
			rx[s] = hx; rmark[s] = FRESH;
#ifdef TOKENS
			rtok[s] = dtok; repo[s] = epoch
#endif
		:: else
		fi
	:: else
	fi
}

/* All grants under way for lock i that are marked a become b. */
inline marks(i, a, b)
{
	for (w : 0 .. SLOTS-1) {
		if :: rx[w] == i+1 && rmark[w] == a -> rmark[w] = b :: else fi
	}
	if :: gp[2*(i)] == a -> gp[2*(i)] = b :: else fi;
	if :: gp[2*(i)+1] == a -> gp[2*(i)+1] = b :: else fi
}

#ifdef RENEW
/* extend.lua, for lock i */
inline execExtend(i)
{
	if
#ifdef BREAK_RECREATE
	:: key == 0 -> setKey(i); elease[i] = TTL
#endif
	:: key == i+1 -> pttl = TTL; elease[i] = pttl	/* never shorter: TTL is the longest */
	:: else -> elease[i] = 0
	fi
}
#endif

/* Redis runs the request in slot s, of lock i. */
inline exec(s, i, member, score)
{
	if
	:: op[s] == CLAIM ->
		rheld[s] = 0;
		if
		:: key == 0 ->
			first();
			assert(h == 0 || slip);		/* G2: no newcomer passes the line */
			setKey(i);
			rheld[s] = 1; rlease[s] = TTL;
#ifdef TOKENS
			repo[s] = epoch
#endif
		:: else
		fi;
#ifdef TOKENS
		ph[s] = HALF
#else
		ph[s] = DONE
#endif
	:: op[s] == TRY -> execAcquire(s, i, 0, score); ph[s] = DONE
	:: op[s] == JOIN -> execAcquire(s, i, 1, score); ph[s] = DONE
	:: op[s] == REL -> execRelease(s, i, member); ph[s] = DONE
	fi;
	if
	:: ph[s] == DONE && ((op[s] == REL && rx[s] == 0) || (op[s] != REL && !rheld[s])) -> age[s] = 0
	:: else
	fi
}

/* --- the library --- */

inline send(i, kind, look, re)
{
	assert(ph[i] == 0);			/* one request at a time for a lock */
	op[i] = kind; ph[i] = SENT; age[i] = 0;
	ounc[i] = 0;
	olook[i] = look; orejoin[i] = re;
	unsent[i] = 0;
	if :: kind != REL -> traced[i] = 1 :: else fi;
#ifdef TOKENS
#ifdef BREAK_CLIENTCLOCK
	floor[i] = (kind == CLAIM -> now : 0)
#else
	floor[i] = (kind == CLAIM -> known[mgr(i)] : 0)
#endif
#endif
}

inline clear(s)	/* the slot, and so the state, forgets what is dealt with */
{
	op[s] = 0; ph[s] = 0; age[s] = 0; ounc[s] = 0; rfreed[s] = 0; rx[s] = 0; rmark[s] = 0;
	if
	:: s < BACK -> rheld[s] = 0; ralone[s] = 0; radded[s] = 0; rlease[s] = 0; rholder[s] = 0
	:: else
	fi;
	if
	:: s < N -> olook[s] = 0; orejoin[s] = 0
	:: else
	fi;
#ifdef TOKENS
	rtok[s] = 0; repo[s] = 0; floor[s] = 0
#endif
}

inline forget(i)
{
	st[i] = GONE; traced[i] = 0; joined[i] = 0; doubt[i] = 0; unsent[i] = 0;
	lscore[i] = 0; rank[i] = 0; stale[i] = 0; valid[i] = 0; marks(i, PAST, FRESH)
}

inline cleanUp(i)
{
	if
	:: ph[i] != 0
	:: ph[i] == 0 && traced[i] -> send(i, REL, 0, 0)
	:: else -> forget(i)
	fi
}

inline abandon(i)
{
	st[i] = LEAVING; unsent[i] = 0; doubt[i] = 0;
	cleanUp(i)
}

inline lose(i)
{
	st[i] = LOST; valid[i] = 0
}

inline unlock(i)
{
	st[i] = LEAVING; traced[i] = 1; valid[i] = 0;
	cleanUp(i)
}

inline lookBy(m)
{
#ifndef BREAK_NOTIMER
	if :: lookAt[m] == 0 -> lookAt[m] = SET :: else fi
#else
	skip
#endif
}

inline firstJoined(m)	/* x: the first waiter of the line that has joined, plus 1 */
{
	x = 0;
	for (q : 0 .. N-1) {
		if
		:: x == 0 && mgr(q) == m && waits(q) && joined[q] -> x = q+1
		:: else
		fi
	}
}

inline acquiring(m)	/* f */
{
	f = 0;
	for (q : 0 .. N-1) {
		if :: mgr(q) == m && acq(q) -> f = 1 :: else fi
	}
}

inline firstUnsent(m)	/* y, plus 1 */
{
	y = 0;
	for (q : 0 .. N-1) {
		if :: y == 0 && mgr(q) == m && waits(q) && unsent[q] -> y = q+1 :: else fi
	}
}

inline pump(m)
{
	acquiring(m);
	firstUnsent(m);
	if
	:: f || y == 0
	:: else ->
		firstJoined(m);
		if
		:: x == 0 && !contended[m] ->
			send(y-1, CLAIM, 0, 0)
#ifndef BREAK_EARLYJOIN
		:: (x != 0 || contended[m]) && !ready(m) ->
			if :: sub[m] == OFF -> sub[m] = SUBSCRIBING :: else fi;
			lookBy(m)
#endif
		:: else ->
			if :: sub[m] == OFF -> sub[m] = SUBSCRIBING :: else fi;
			for (z : 0 .. N-1) {
				if
				:: mgr(z) == m && waits(z) && unsent[z] -> send(z, JOIN, 0, 0)
				:: else
				fi
			}
		fi
	fi
}

inline look(m)
{
	firstJoined(m);
	if
	:: x == 0 -> pump(m)
	:: x != 0 && inFlight(x-1) -> lookAgain[m] = 1
	:: else -> send(x-1, JOIN, 1, 0)
	fi
}

inline rejoin(m)
{
	for (z : 0 .. N-1) {
		if
		:: mgr(z) == m && waits(z) && joined[z] && ph[z] == 0 -> send(z, JOIN, 0, 1)
		:: else
		fi
	}
}

inline confirm(i)
{
	if
	:: !waits(i)
	:: waits(i) && inFlight(i) -> doubt[i] = 1
	:: else -> doubt[i] = 0; send(i, (joined[i] -> JOIN : TRY), 0, 0)
	fi
}

inline giveBack(i)
{
	if
	:: ph[BACK+i] == 0 -> op[BACK+i] = REL; ph[BACK+i] = SENT
	:: else	/* a bound of the model: one at a time */
	fi
}

/* v: validity in ticks, 0: over */
inline granted(i, t, e)
{
	if
	:: !waits(i)
	:: waits(i) && v > 0 ->
		st[i] = HELD; valid[i] = v; unsent[i] = 0; doubt[i] = 0; stale[i] = 0;
		joined[i] = inFlight(i);
		accept(i, t, e);
		firstJoined(mgr(i));
		if :: x != 0 -> lookBy(mgr(i)) :: else fi
	:: waits(i) && v == 0 && stale[i] < LATE ->
		stale[i]++;
		if
		:: joined[i] -> lookBy(mgr(i))
		:: else -> confirm(i)
		fi
	:: else -> abandon(i)
	fi
}

inline accept(i, t, e)
{
#ifdef TOKENS
	tok[i] = t; tepo[i] = e;
	for (q : 0 .. N-1) {			/* G10 */
		assert(q == i || tok[q] == 0 || (tepo[q] < e && tok[q] < t) || (tepo[q] > e && tok[q] > t))
	}
#else
	skip
#endif
}

#ifdef BREAK_REPLYTIME
#define left(lease, since)	(lease)
#else
#define left(lease, since)	((lease) > (since) -> (lease) - (since) : 0)
#endif
#ifdef TOKENS
#define RTOK(s) rtok[s]
#define REPO(s) repo[s]
#define GTOK(s) gtok[s]
#define GEPO(s) gepo[s]
#else
#define RTOK(s) 0
#define REPO(s) 0
#define GTOK(s) 0
#define GEPO(s) 0
#endif

inline taken(i)
{
	contended[mgr(i)] = 1;
	if :: waits(i) -> unsent[i] = 1 :: else fi
}

inline afterAcquire(i)	/* the end of complete; rl: it was a look */
{
	if :: st[i] == LEAVING && ph[i] == 0 -> cleanUp(i) :: else fi;
	if
	:: lookAgain[mgr(i)] || (rl && !lookAt[mgr(i)]) ->
		lookAgain[mgr(i)] = 0;
#ifndef BREAK_NOTIMER
		look(mgr(i))
#endif
	:: else
	fi;
	pump(mgr(i))
}

/* The reply of CLAIM, TRY or JOIN arrives. Its slot is free from the start, as
 * what follows may send anew; so what it holds is kept in scratch. */
hidden byte  skind, sturn, sholder, stok, sepo;
hidden byte sheld, salone, sadded, srejoin, slost;

inline acquired(i)
{
	skind = op[i]; sturn = rx[i]; sholder = rholder[i];
	sheld = rheld[i]; salone = ralone[i]; sadded = radded[i]; srejoin = orejoin[i];
	rl = olook[i];
	c = left(rlease[i], age[i]);
	stok = RTOK(i); sepo = REPO(i);
#ifdef TOKENS
#ifndef BREAK_NOFLOOR
	srejoin = srejoin || (skind == CLAIM && sheld && stok <= floor[i]);
#endif
	if :: known[mgr(i)] < floor[i] -> known[mgr(i)] = floor[i] :: else fi;
#endif
	clear(i);
	if
	:: sturn != 0 ->
		if
		:: ticket(sturn-1) -> confirm(sturn-1)
		:: else -> giveBack(sturn-1)
		fi
	:: else
	fi;
	if
	:: skind == CLAIM && sheld && srejoin && waits(i) ->
		send(i, TRY, 0, 0)	/* the fence was lost: draw again */
	:: sheld && !(skind == CLAIM && srejoin && waits(i)) ->
		slost = salone && joined[i] && !srejoin;
		v = c;
		granted(i, stok, sepo);
		if :: slost -> rejoin(mgr(i)) :: else fi
	:: !sheld && skind != JOIN ->
		traced[i] = joined[i];
		taken(i)
	:: else ->
		again = joined[i] && sadded && !srejoin;
		joined[i] = 1;
		if
		:: waits(i) ->
			/* In reality the score comes with the reply; it is the same. */
			lscore[i] = rank[i];
			marks(i, OLDER, PAST);
			contended[mgr(i)] = 1;
			lookBy(mgr(i));
			if :: doubt[i] -> confirm(i) :: else fi;
			if
			:: rl && sholder != 0 && sholder <= N ->	/* find */
				if
				:: mgr(sholder-1) == mgr(i) && waits(sholder-1) -> confirm(sholder-1)
				:: else
				fi
			:: else
			fi;
			if :: again -> rejoin(mgr(i)) :: else fi
		:: else -> marks(i, OLDER, FRESH)
		fi
	fi;
	afterAcquire(i)
}

/* A request or reply was lost, and the library learns that there is no answer. */
inline failed(i, giveUp)
{
	marks(i, OLDER, FRESH);
	skind = op[i]; rl = olook[i]; srejoin = orejoin[i];
	if
	:: waits(i) && (joined[i] || !giveUp) ->	/* tryAgain */
		clear(i);
		traced[i] = 1;
		send(i, (skind == CLAIM -> TRY : skind), rl, srejoin)
	:: else ->
		clear(i);
		joined[i] = joined[i] || skind == JOIN;
		if :: waits(i) -> abandon(i) :: else fi;
		afterAcquire(i)
	fi
}

/* The reply of a release in slot s, of lock i, arrives. */
inline released(s, i)
{
	sturn = rx[s]; again = rfreed[s]; rl = ounc[s]; srejoin = (rmark[s] == PAST);
	v = left(TTL, age[s]);
	stok = RTOK(s); sepo = REPO(s);
	clear(s);
	if :: s < N -> forget(i) :: else fi;
	if
	:: sturn != 0 && !ticket(sturn-1) -> giveBack(sturn-1)
	:: sturn != 0 && ticket(sturn-1) && !srejoin -> granted(sturn-1, stok, sepo)
	:: else
	fi;
	firstJoined(mgr(i));
	if
	:: rl || (again && x != 0) -> look(mgr(i))
	:: else
	fi
}

inline again_(s)	/* a release is sent again */
{
	ph[s] = SENT; age[s] = 0; ounc[s] = 1; rx[s] = 0; rfreed[s] = 0; rmark[s] = 0;
#ifdef TOKENS
	rtok[s] = 0; repo[s] = 0
#endif
}

#ifdef RENEW
inline clearExtend(i) { eph[i] = 0; eage[i] = 0; elease[i] = 0 }

inline extended(i)
{
	v = left(elease[i], eage[i]);
	if
	:: st[i] == HELD && elease[i] == 0 -> lose(i)
	:: st[i] == HELD && elease[i] != 0 -> valid[i] = (v > valid[i] -> v : valid[i])
	:: else
	fi;
	clearExtend(i)
}
#endif

/* The oldest grant message for lock i arrives. ask: the clocks are of no use. */
inline grantedElsewhere(i, ask)
{
	k = gp[2*(i)]; v = left(TTL, ga[2*(i)]);
	stok = GTOK(2*(i)); sepo = GEPO(2*(i));
	shift(i);
	if
	:: !ticket(i) -> giveBack(i)
	:: ticket(i) && (!waits(i) || k == PAST)
	:: else ->
		if
		:: ask || v == 0 -> confirm(i)
		:: else -> granted(i, stok, sepo)
		fi
	fi
}

inline subscribed(m)
{
	sub[m] = READY;
#ifndef BREAK_EARLYJOIN
	look(m);
#endif
	pump(m)
}

inline tick(m)
{
	lookAt[m] = 0;
	firstJoined(m);
	if
	:: x == 0 && !ready(m) ->		/* knock */
		acquiring(m);
		firstUnsent(m);
		if
		:: !f && y != 0 -> send(y-1, TRY, 0, 0)
		:: else
		fi
	:: else -> look(m)
	fi
}

/* --- time and faults --- */

inline less(t) { if :: t > 0 -> t-- :: else fi }
inline more(t) { if :: t < TTL -> t++ :: else fi }

inline time()
{
	if
	:: pttl > 0 ->
		pttl--;
		if :: pttl == 0 -> key = 0; slip = 1 :: else fi
	:: else
	fi;
	for (q : 0 .. N-1) {
		less(valid[q]);
		if :: gp[2*q] != 0 -> more(ga[2*q]) :: else fi;
		if :: gp[2*q+1] != 0 -> more(ga[2*q+1]) :: else fi;
#ifdef RENEW
		if :: eph[q] != 0 -> more(eage[q]) :: else fi;
#endif
	}
	for (q : 0 .. SLOTS-1) {
		if
		:: ph[q] == SENT || ph[q] == RAISED || ph[q] == HALF || (ph[q] == DONE && ((op[q] == REL && rx[q] != 0) || (op[q] != REL && rheld[q]))) ->
			more(age[q])
		:: else
		fi
	}
	for (q : 0 .. M-1) {
		contended[q] = 0;
		if :: lookAt[q] == SET -> lookAt[q] = DUE :: else fi
	}
#ifdef FOREIGN
	less(fvalid);
#endif
}

inline dropMessages(m)
{
	for (q : 0 .. N-1) {
		if
		:: mgr(q) == m -> shift(q); shift(q)
		:: else
		fi
	}
}

inline cut(m)
{
	disturbed = 1;
	if :: rsub[m] -> rsub[m] = 0; zombie[m] = 1 :: else fi;
	if
	:: sub[m] == READY -> sub[m] = CUT
	:: sub[m] == CONFIRMING -> sub[m] = SUBSCRIBING
	:: else
	fi;
	dropMessages(m)
}

inline crash(m)
{
	dead[m] = 1;
	if :: rsub[m] -> rsub[m] = 0; zombie[m] = 1 :: else fi;
	sub[m] = OFF; lookAt[m] = 0; lookAgain[m] = 0; contended[m] = 0;
#ifdef TOKENS
	known[m] = 0;
#endif
	dropMessages(m);
	for (z : 0 .. SLOTS-1) {
		if
		:: ph[z] == DONE && mgr(owner(z)) == m -> clear(z)
		:: else
		fi
	}
	for (z : 0 .. N-1) {
		if
		:: mgr(z) == m ->
			st[z] = CRASHED; valid[z] = 0; unsent[z] = 0; traced[z] = 0; doubt[z] = 0; stale[z] = 0;
#ifdef RENEW
			if :: eph[z] == DONE -> clearExtend(z) :: else fi;
#endif
			if :: ph[z] == 0 -> joined[z] = 0; lscore[z] = 0 :: else fi
		:: else
		fi
	}
}

inline flush()
{
	disturbed = 1; flushed = 1; slip = 1;
	key = 0; pttl = 0;
	for (q : 0 .. N-1) { sc[q] = 0 }
#ifdef TOKENS
	fence = 0
#endif
}

inline loseQueue()
{
	disturbed = 1;
	for (q : 0 .. N-1) { sc[q] = 0 }
}

/* Forgets what can make no difference any more, so that fewer states differ. */
inline tidy()
{
	for (z : 0 .. M-1) {
		f = 0; x = 0; y = 0;	/* f: a lock is not gone; x: one is waiting; y: one may be unsent */
		for (q : 0 .. N-1) {
			if
			:: mgr(q) == z ->
				f = f || (st[q] != GONE && st[q] != CRASHED) || ph[BACK+q] != 0;
				x = x || waits(q) || acq(q);
				y = y || st[q] == IDLE || (waits(q) && !joined[q])
			:: else
			fi
		}
		if :: !y -> contended[z] = 0 :: else fi;
		if :: !x -> lookAt[z] = 0; lookAgain[z] = 0 :: else fi;
#ifdef TOKENS
		if :: !x && !y -> known[z] = 0 :: else fi;
#endif
#if GHOSTS == 0
		if :: !f && !dead[z] -> sub[z] = OFF; rsub[z] = 0; zombie[z] = 0 :: else fi;
#endif
	}
#if GHOSTS == 0
	/* A lock that is gone has no member and no key: to give back does nothing. */
	for (q : 0 .. N-1) {
		if :: st[q] == GONE -> shift(q); shift(q) :: else fi
	}
#endif
	for (q : 0 .. N-1) {
		if :: !waits(q) -> stale[q] = 0 :: else fi;
		if :: !waits(q) && !acq(q) -> lscore[q] = 0 :: else fi;
		if :: sc[q] == 0 && !waits(q) && !acq(q) -> rank[q] = 0 :: else fi
	}
	for (q : 0 .. 2*N-1) {
		if :: gp[q] == PAST -> ga[q] = 0 :: else fi
	}
}

/* What holds after every step. */
inline check()
{
	tidy();
	for (q : 0 .. N-1) {
		/* G1, G6: who believes holds, and for no longer than it is true */
		assert(flushed || !holds(q) || (key == q+1 && pttl >= valid[q]));
#if GHOSTS == 0
		/* G9: nothing is left of who is gone */
		assert(st[q] != GONE || (key != q+1 && sc[q] == 0));
#endif
#ifndef BREAK_NOTIMER
		/* G5: a wake-up is always set or under way */
		if
		:: waits(q) && !lookAt[mgr(q)] ->
			f = 0;
			for (w : 0 .. N-1) {
				if :: mgr(w) == mgr(q) && acq(w) -> f = 1 :: else fi
			}
			assert(f)
		:: else
		fi
#endif
	};
	skip	/* a d_step may not end in a loop */
}

/* --- who acts --- */

proctype User(byte i)
{
end:	do
	:: d_step { st[i] == IDLE && mayStart(i) -> printf("Lock %d is called\n", i); st[i] = WAITING; unsent[i] = 1; pump(mgr(i)); check() }
	:: d_step { st[i] == WAITING && cancels > 0 -> printf("lock %d: its context ends\n", i); cancels--; abandon(i); check() }
	:: d_step { st[i] == HELD -> printf("lock %d: Unlock\n", i); unlock(i); check() }
	:: d_step { st[i] == HELD && valid[i] == 0 -> printf("lock %d: its lease is over, it is lost\n", i); lose(i); check() }
	:: d_step { st[i] == LOST -> printf("lock %d: Unlock after the loss\n", i); unlock(i); check() }
	od
}

/* Carries the requests of slot s, which is of lock i. */
proctype Wire(byte s; byte i)
{
end:	do
#ifdef TOKENS
	/* Only a manager that has raised the fence lately may do without: that is 10 ms
	 * in the library, and any time here. */
	:: d_step { ph[s] == SENT && op[s] == CLAIM -> printf("Redis raises the fence for lock %d\n", i);
			raise(s); ph[s] = RAISED; check()
		}
	:: d_step { ph[s] == RAISED || (ph[s] == SENT && (op[s] != CLAIM || floor[s] != 0)) -> printf("Redis runs %d (1 claim, 2 try, 3 join, 4 release) of lock %d\n", op[s], i);
#else
	:: d_step { ph[s] == SENT -> printf("Redis runs %d (1 claim, 2 try, 3 join, 4 release) of lock %d\n", op[s], i);
#endif
			exec(s, i, (s < N && joined[i]), lscore[i]);
			if
			:: dead[mgr(i)] && ph[s] == DONE -> clear(s)
			:: else
			fi;
			check()
		}
#ifdef TOKENS
	:: d_step { ph[s] == HALF -> printf("Redis draws the token of lock %d\n", i);
			now++; fence++;		/* INCR begins a fence where there is none */
			rtok[s] = fence; ph[s] = DONE;
			if
			:: dead[mgr(i)] -> clear(s)
			:: else
			fi;
			check()
		}
#endif
	:: d_step { ph[s] == DONE && op[s] != REL -> printf("lock %d: the reply of %d arrives, held %d\n", i, op[s], rheld[s]); acquired(i); check() }
	:: d_step { ph[s] == DONE && op[s] == REL -> printf("lock %d: the reply of release arrives, freed %d, handed to %d\n", i, rfreed[s], rx[s]); released(s, i); check() }
#if LOSSES > 0
	:: d_step { ph[s] != 0 && op[s] != REL && losses > 0 && !dead[mgr(i)] -> printf("lock %d: %d or its reply is lost\n", i, op[s]); losses--; failed(i, 0); check() }
	:: d_step { ph[s] != 0 && op[s] != REL && losses > 0 && !dead[mgr(i)] && !joined[i] && waits(i) -> printf("lock %d: %d or its reply is lost, gives up\n", i, op[s]); losses--; failed(i, 1); check() }
	:: d_step { ph[s] != 0 && op[s] == REL && losses > 0 && !dead[mgr(i)] -> printf("lock %d: release or its reply is lost\n", i); losses--; again_(s); check() }
#endif
#if GHOSTS > 0
	:: d_step { ph[s] == SENT && s < N && lates > 0 && !dead[mgr(i)] -> printf("lock %d: gives up on %d, which is still under way\n", i, op[s]);
			lates--; lateof = i+1; latejoined = joined[i]; latescore = lscore[i];
			op[LATEST] = op[s]; ph[LATEST] = SENT;
			if
			:: op[s] == REL -> again_(s)
			:: else -> failed(i, 0)
			fi;
			check()
		}
#endif
#if CRASHES > 0
	:: d_step { ph[s] != 0 && dead[mgr(i)] -> clear(s); check() }
#endif
	od
}

#if GHOSTS > 0
proctype Late(byte i)
{
end:	do
	:: d_step { ph[LATEST] == SENT -> printf("Redis runs the late %d of lock %d\n", op[LATEST], lateof-1);
			i = lateof-1;
			exec(LATEST, i, latejoined, latescore);
			clear(LATEST); lateof = 0; latejoined = 0; latescore = 0; i = 0;
			check()
		}
	od
}
#endif

/* The timer of a line. */
proctype Timer(byte m)
{
end:	do
	:: d_step { lookAt[m] == DUE -> printf("manager %d: timer\n", m); tick(m); check() }
	od
}

/* The subscription of a manager. */
proctype Events(byte m)
{
end:	do
	:: d_step { sub[m] == SUBSCRIBING -> sub[m] = CONFIRMING; rsub[m] = 1 }
	:: d_step { sub[m] == CONFIRMING -> printf("manager %d: subscribed\n", m); subscribed(m); check() }
	:: sub[m] == CUT -> sub[m] = SUBSCRIBING
	:: zombie[m] -> zombie[m] = 0
	od
}

/* What it brings for lock i. */
proctype Push(byte i)
{
end:	do
	:: d_step { gp[2*i] != 0 && sub[mgr(i)] == READY -> printf("lock %d: its grant message arrives\n", i); grantedElsewhere(i, 0); check() }
	:: d_step { gp[2*i] != 0 && sub[mgr(i)] == READY -> printf("lock %d: its grant message arrives, of unknown age\n", i); grantedElsewhere(i, 1); check() }
	od
}

#ifdef RENEW
proctype Renewal(byte i)
{
end:	do
	:: d_step { holds(i) && eph[i] == 0 -> eph[i] = SENT; eage[i] = 0 }
	:: d_step { eph[i] == SENT -> printf("Redis extends lock %d\n", i); execExtend(i); eph[i] = (dead[mgr(i)] -> 0 : DONE); check() }
	:: d_step { eph[i] == DONE -> printf("lock %d: the reply of extend arrives\n", i); extended(i); check() }
#if LOSSES > 0
	:: d_step { eph[i] == SENT && losses > 0 -> losses--; clearExtend(i); elate[i] = 1 }
	:: d_step { eph[i] == DONE && losses > 0 -> losses--; clearExtend(i) }
	:: d_step { elate[i] -> printf("Redis runs a late extend of lock %d\n", i); execExtend(i); elease[i] = 0; elate[i] = 0; check() }
	:: elate[i] -> elate[i] = 0
#endif
	od
}
#endif

#ifdef FOREIGN
proctype Foreigner()
{
	do
	:: d_step { key == 0 -> first(); assert(h == 0 || slip); key = FOREIGNER; pttl = TTL; fvalid = TTL; slip = 0; check() }; break
	:: break
	od;
	do
	:: d_step { key == FOREIGNER -> key = 0; pttl = 0; fvalid = 0; slip = 1; check() }; break
	:: break
	od
}
#endif

#ifdef OTHERKEY
/* Claims of another key by another manager: they draw from the same fence, and
 * begin it if it was lost. The manager that finds it so may die, or draw by script. */
proctype Other()
{
end:	do
	:: d_step { fence == 0 -> printf("Redis draws a token for another key\n"); fence++ }
	od
}
#endif

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

/* The commands of a claim come in one packet, and Redis runs them in one go. An
 * expiry may come between them, as Redis was stopped, but not a FLUSHALL. */
#if BETWEEN == 0
#define within(i)	(ph[i] == RAISED || ph[i] == HALF)
#elif BETWEEN == 1
#define within(i)	(ph[i] == HALF)
#else
#define within(i)	0
#endif
#if N == 2
#define halfway	(within(0) || within(1))
#else
#define halfway	(within(0) || within(1) || within(2))
#endif

proctype Faults()
{
	byte cuts = CUTS, crashes = CRASHES, flushes = FLUSHES, queueloss = QUEUELOSS, m;
	do
	:: atomic { cuts > 0 ->
		do :: m < M-1 -> m++ :: break od;
		d_step { cuts--; printf("manager %d: subscription cut\n", m); cut(m); m = 0; check() } }
	:: atomic { crashes > 0 ->
		do :: m < M-1 -> m++ :: break od;
		d_step { crashes--; printf("manager %d dies\n", m); crash(m); m = 0; check() } }
	:: d_step { flushes > 0 && !(halfway) -> flushes--; printf("Redis loses everything\n"); flush(); check() }
	:: d_step { queueloss > 0 -> queueloss--; printf("Redis loses the queue\n"); loseQueue(); check() }
	:: break
	od
}

init {
	byte i;
	atomic {
#ifdef TOKENS
		known[0] = 10;
#endif
		for (i : 0 .. N-1) {
			run User(i); run Wire(i, i); run Wire(BACK+i, i);
#ifndef NOGRANTS
			run Push(i);
#endif
#ifdef RENEW
			run Renewal(i);
#endif
		}
		for (i : 0 .. M-1) {
#ifdef SUBSCRIBED
			sub[i] = READY; rsub[i] = 1;
#endif
			run Timer(i); run Events(i);
		}
#if GHOSTS > 0
		run Late(0);
#endif
#ifdef FOREIGN
		run Foreigner();
#endif
#ifdef OTHERKEY
		run Other();
#endif
		run Clock();
#if CUTS + CRASHES + FLUSHES + QUEUELOSS > 0
		run Faults();
#endif
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
ltl g5 { <>[] !someoneWaits }
#endif
